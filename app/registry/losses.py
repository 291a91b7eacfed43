"""Models whose processes end again and again are left alone for a while."""

from collections import deque

from app.errors import EngineLost, Unavailable

MOST = 3
"""Losses within ``WINDOW`` seconds after which a model is not loaded for ``REST`` seconds."""
WINDOW = 600.0
REST = 120.0


class Losses:
    """How often each model's process has ended unasked. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._recent: dict[str, deque[float]] = {}
        self._last: dict[str, EngineLost] = {}

    def note(self, model: str, error: EngineLost, now: float) -> None:
        """It has ended."""
        self._counts[model] = self.count(model) + 1
        self._recent.setdefault(model, deque(maxlen=MOST)).append(now)
        self._last[model] = error

    def count(self, model: str) -> int:
        """How often, since the service started."""
        return self._counts.get(model, 0)

    @property
    def total(self) -> int:
        """How often any has."""
        return sum(self._counts.values())

    def failing(self, now: float) -> list[str]:
        """The models that are left alone at the moment, by name."""
        return [model for model in sorted(self._recent) if self._left(model, now) > 0]

    def check(self, model: str, now: float) -> None:
        """Raises :class:`app.errors.Unavailable` for a model that is left alone at the moment."""
        left = self._left(model, now)
        if left > 0:
            raise Unavailable(
                f"{model} has ended {MOST} times within {WINDOW / 60:g} minutes and is not loaded for now. Name "
                f"another model, or try again later. The last time: {self._last[model].message}",
                code=EngineLost.code,
                retry_after=left,
            )

    def _left(self, model: str, now: float) -> float:
        """Seconds for which it is left alone; none or less: it is not."""
        recent = self._recent.get(model)
        if recent is None or len(recent) < MOST or recent[-1] - recent[0] > WINDOW:
            return 0.0
        return recent[-1] + REST - now
