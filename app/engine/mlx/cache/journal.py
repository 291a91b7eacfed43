"""What is done to models and KV caches, told to whoever repeats it on other parts of the same model.

A model may lie on several ranks (docs/adr/ranks.md). One of them decides; the others do the same to their own part, in
the same order. Everything that touches a model's arrays passes here: :class:`SharedModel` for the forward passes,
:func:`recorded` for the operations of a :class:`app.engine.mlx.cache.kv.KV`. Where nobody repeats anything there is no
journal, and nothing is told.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import mlx.core as mx

P = ParamSpec("P")
T = TypeVar("T")


class Journal(Protocol):
    """Tells others of an operation before it is done here. MLX thread only; ``ranks`` counts them and this one."""

    ranks: int

    def fresh(self, model: SharedModel, bits: int | None, mask_axes: int) -> Any:
        """An empty KV cache, as :meth:`app.engine.mlx.cache.kv.KV.fresh` makes it."""

    def forward(self, model: SharedModel, layers: list[Any], tokens: mx.array, *, logits: bool) -> mx.array:
        """Compute ``tokens``, ``[rows, positions]``, behind what ``layers`` hold; the logits, queued if wanted.

        Without ``logits`` nothing is queued yet: the keys and values alone are going to be.
        """

    def repeat(self, operation: Callable[..., T], kv: Any, arguments: tuple[Any, ...]) -> T:
        """Do ``operation(kv, *arguments)`` here and elsewhere."""


class Recorded(Protocol):
    """A KV cache; without a ``journal`` it is this process's alone."""

    journal: Journal | None


K = TypeVar("K", bound=Recorded)


def recorded(operation: Callable[Concatenate[K, P], T]) -> Callable[Concatenate[K, P], T]:
    """A method that changes what a KV cache holds, or makes another of it. Arguments are numbers, lists, caches."""

    @wraps(operation)
    def recording(kv: K, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if kv.journal is None:
            return operation(kv, *args, **kwargs)
        if kwargs:
            raise TypeError(f"{operation.__name__} is told by the places of its arguments, not by their names.")
        return kv.journal.repeat(operation, kv, args)

    recording.recorded = True  # type: ignore[attr-defined]  # for the test that no operation is forgotten
    return recording


class SharedModel:
    """This rank's part of a model that lies on several; whatever is asked of it but to compute is its own part's.

    With ``whole_layers`` it has some of the layers, else a part of each.
    """

    def __init__(self, own: Any, journal: Journal, number: int, *, whole_layers: bool = False) -> None:
        self.own = own
        self.whole_layers = whole_layers
        self.journal = journal
        self.number = number

    def __call__(self, tokens: mx.array, *, cache: list[Any]) -> mx.array:
        """The logits of ``tokens``; see :meth:`Journal.forward`."""
        return self.journal.forward(self, cache, tokens, logits=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)
