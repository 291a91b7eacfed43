"""Rank 0's side: it tells the others what it is about to do to a model or a KV cache, and does it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from weakref import finalize

import mlx.core as mx

from app.engine.facts import Limits
from app.engine.mlx.cache.journal import SharedModel
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.ranks.group import connect, forward
from app.engine.mlx.ranks.link import still_running
from app.engine.mlx.ranks.operations import (
    Drop,
    Forward,
    Fresh,
    Join,
    Limit,
    Operations,
    Repeat,
    Unload,
    encoded,
    framed,
)
from app.engine.mlx.ranks.peers import Peers, Steps
from app.engine.ranks import SILENCE, RankState, Seat
from app.errors import Unavailable

T = TypeVar("T")


class Leader:
    """Implements :class:`app.engine.mlx.cache.journal.Journal`. MLX thread only, but for ``states``.

    ``lost`` is called, on any thread, with the reason for which this group is no good any more; what waits for the
    others then waits for the end of the process.
    """

    def __init__(self, seat: Seat, lost: Callable[[str], None]) -> None:
        self.seat = seat
        self.ranks = seat.size
        self.path = ""
        """The directory of the model that is divided, once it is."""
        self.models = 0
        """The number of the latest model; 0 is the base."""
        self._peers = Peers(seat, lost, self._beat)
        self._number = 0
        self._inside = False
        self._numbers: dict[int, int] = {}
        """Of KV caches, by the identities of their lists of layers."""
        self._dropped: deque[int] = deque()
        self._group: Any = None

    @property
    def group(self) -> Any:
        """The backend's group; raises RuntimeError before :meth:`gather` has ended."""
        if self._group is None:
            raise RuntimeError("The ranks are not connected yet.")
        return self._group

    @property
    def states(self) -> list[RankState]:
        """The other ranks as they last said; any thread."""
        return self._peers.states

    def gather(self) -> Steps[None]:
        """Wait for every rank, then connect the backend; raises :class:`app.errors.Unavailable` where that fails."""
        if self._group is not None:
            return
        yield from self._peers.gather()
        number = self.tell(Join)
        try:
            self._group = connect(self.seat)
        except RuntimeError as failure:
            raise Unavailable(f"The ranks could not be connected: {failure}", retry_after=10) from failure
        yield from self.wait(number)

    def tell(self, operation: Callable[[int], Operations]) -> int:
        """Have the others do something; its number."""
        self._number += 1
        self._peers.send(framed(operation(self._number)))
        if self._dropped:
            self._drop()
        return self._number

    def unload(self, model: int) -> None:
        """Let an adapted model go everywhere else."""
        self.tell(lambda number: Unload(number, model))

    def wait(self, number: int) -> Steps[dict[int, int]]:
        """Until every other rank has done an operation that is answered; its bytes, by rank."""
        return self._peers.wait(number)

    def loaded(self) -> None:
        """Nothing takes long any more: from now on a rank that is silent for a moment is frozen."""
        self._peers.watch(SILENCE)

    def limit(self, limits: Limits) -> None:
        """What each of the others may take, those too that are still to come."""
        self._peers.greeting = framed(Limit(limits))
        self._peers.send(self._peers.greeting)

    def _beat(self) -> bytes:
        """The next sign of life; what is not used any more is told to all with the first."""
        still_running(self._peers.silence)
        self._drop()
        return framed(Drop([]))

    def _drop(self) -> None:
        dropped = []
        with suppress(IndexError):  # several threads may take from it
            while True:
                dropped.append(self._dropped.popleft())
        if dropped:
            self._peers.send(framed(Drop(dropped)))

    # --- the journal -------------------------------------------------------------------------------------------------

    def fresh(self, model: SharedModel, bits: int | None, mask_axes: int) -> KV:
        """An empty KV cache on every rank."""
        number = self.tell(lambda number: Fresh(number, model.number, bits, mask_axes))
        with self._everywhere(number):
            return self._adopted(KV.fresh(model.own, bits, mask_axes), number)

    def forward(self, model: SharedModel, layers: list[Any], tokens: mx.array, *, logits: bool) -> mx.array:
        """A pass over every part of the model."""
        held = -1 if model.whole_layers else _held(layers)
        kv, (rows, positions) = self._numbers[id(layers)], tokens.shape
        number = self.tell(lambda number: Forward(number, model.number, kv, held, rows, positions, logits))
        with self._everywhere(number):
            return forward(model.own, layers, tokens, self.group, logits=logits)

    def repeat(self, operation: Callable[..., T], kv: KV, arguments: tuple[Any, ...]) -> T:
        """An operation on every rank's part of a KV cache; those within it are done by each rank itself."""
        if self._inside:
            return operation(kv, *arguments)
        plain = encoded(arguments, self._number_of)
        number = self.tell(lambda number: Repeat(number, operation.__name__, self._number_of(kv), plain))
        with self._everywhere(number):
            made = operation(kv, *arguments)
        if isinstance(made, KV) and made.journal is None:
            self._adopted(made, number)
        return made

    def _number_of(self, kv: KV) -> int:
        return self._numbers[id(kv.layers)]

    def _adopted(self, kv: KV, number: int) -> KV:
        kv.journal = self
        self._numbers[id(kv.layers)] = number
        finalize(kv, self._forget, id(kv.layers), number)
        return kv

    def _forget(self, layers: int, number: int) -> None:
        """A KV cache is gone; any thread."""
        del self._numbers[layers]
        self._dropped.append(number)

    @contextmanager
    def _everywhere(self, number: int) -> Iterator[None]:
        """What fails here has to fail everywhere, or the ranks no longer agree."""
        self._inside = True
        try:
            yield
        except Exception as failure:
            self._peers.raised(number, failure)
            raise
        finally:
            self._inside = False


def _held(layers: list[Any]) -> int:
    """Positions that are filled; another number on another rank means that it is out of step."""
    return KV(layers, 1, merged=True).positions
