"""How many bytes models may have, and what the gauge says against what the books say."""

from math import inf
from typing import Protocol

from msgspec import Struct

from app.engine.base import MemoryGauge
from app.errors import ModelUnusable
from app.settings import Settings

_MARGIN_SHARE = 32


class PrefixCaches(Protocol):
    """KV caches of finished requests, kept for prompts that begin alike: the first memory to be given up."""

    def nbytes(self) -> int:
        """What they hold."""

    async def trim(self, nbytes: int) -> None:
        """Free at least that many bytes, or all there are."""

    def allow(self, nbytes: int) -> None:
        """They may hold so much from now on, and free what is more."""


class NoPrefixCaches:
    """Nothing is kept."""

    def nbytes(self) -> int:
        """Zero."""
        return 0

    async def trim(self, nbytes: int) -> None:
        """Nothing to do."""

    def allow(self, nbytes: int) -> None:
        """Nothing is."""


class Budget(Struct, frozen=True):
    """``total`` bytes, of which ``margin`` are for what no book has: activations, scratch space, fragments.

    ``host`` bytes of the system's memory are for processes beside a device with its own; without one there is no end.
    """

    total: int
    margin: int
    host: float = inf

    @property
    def limit(self) -> int:
        """Bytes for weights and KV caches."""
        return self.total - self.margin

    def unaccounted(self, active: int, booked: int) -> int:
        """Bytes of the limit that are in use (``active``, measured) though nothing was ``booked`` for them."""
        return max(0, active - booked - self.margin)


def preflight(budget: Budget, repo: str, weights: int, quantize: int | None) -> None:
    """Refuse a model whose files hold more ``weights`` than the budget, before they are fetched.

    Raises :class:`app.errors.ModelUnusable`. To be quantised they may be larger: 32 bits become ``quantize``.
    """
    least = weights if quantize is None else weights * quantize // 32
    if least > budget.limit:
        raise ModelUnusable(
            f"{repo} has {size(weights)} of weights, and models can have {size(budget.limit)} of the budget of "
            f"{size(budget.total)}. Nothing was fetched. Name a smaller model, or raise memory_budget.",
            code="memory_budget_exceeded",
        )


def budget_of(settings: Settings, gauge: MemoryGauge) -> Budget:
    """The plain number in the settings, or a fraction of what the machine has for models."""
    total = total_of(settings, gauge.total(), gauge.default_budget())
    return Budget(total, total // _MARGIN_SHARE, gauge.host_budget() or inf)


def total_of(settings: Settings, memory: int, default: int) -> int:
    """Bytes for models on a device with ``memory`` bytes, of which models have ``default`` if nobody says otherwise."""
    if settings.memory_budget is not None:
        return settings.memory_budget
    return default if settings.memory_fraction is None else int(memory * settings.memory_fraction)


def size(nbytes: float) -> str:
    """Bytes for people: ``"1.5 GB"``."""
    for unit in ("bytes", "kB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "bytes" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} GB"
