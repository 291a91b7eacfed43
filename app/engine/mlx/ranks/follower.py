"""A rank that is not rank 0: it repeats what it is told on its own part of the model."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

from app.engine.facts import Limits
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.memory import IDLE_SECONDS, give_back, settle
from app.engine.mlx.ranks.group import connect, forward
from app.engine.mlx.ranks.operations import (
    AdaptPart,
    Done,
    Drop,
    Forward,
    Fresh,
    Join,
    Limit,
    LoadPart,
    Measure,
    Operations,
    Raised,
    Repeat,
    ToFollower,
    ToLeader,
    Unload,
    Watch,
    understood,
)
from app.engine.options import DType
from app.engine.ranks import Backend, Seat


class OutOfStep(Exception):
    """Rank 0 means something else than this rank has."""


class Parts:
    """How this rank's part of a model is made; given by the room that loads models."""

    def load(self, path: Path, dtype: DType, group: Any, backend: Backend) -> tuple[Any, int]:
        """A model and its bytes."""
        raise NotImplementedError

    def adapt(self, base: Any, path: Path, adapter: Path, group: Any) -> tuple[Any, int]:
        """The base with an adapter, and the adapter's own bytes."""
        raise NotImplementedError

    def measure(self, model: Any, bits: int | None) -> None:
        """Compute what rank 0 computes to see what that takes."""
        raise NotImplementedError

    def limit(self, limits: Limits) -> None:
        """Take no more than that from now on."""
        raise NotImplementedError


class Follower:
    """Runs what comes, one after the other; ``tell`` answers rank 0. The process's MLX thread only."""

    def __init__(self, seat: Seat, parts: Parts, tell: Callable[[ToLeader], None]) -> None:
        self._seat = seat
        self._parts = parts
        self._tell = tell
        self._group: Any = None
        self._models: dict[int, Any] = {}
        self._kvs: dict[int, KV] = {}
        self._latest: mx.array = mx.zeros(())

    def run(self, messages: queue.SimpleQueue[ToFollower]) -> None:
        """Until something fails that did not fail on rank 0; it is raised."""
        failed: tuple[int, Exception] | None = None
        while True:
            message = self._next(messages)
            if isinstance(message, Drop):
                self._drop(message.kvs)
            elif isinstance(message, Limit):
                self._parts.limit(message.limits)
            elif isinstance(message, Watch):
                continue  # its link has seen to that
            elif failed is not None:
                if not isinstance(message, Raised) or message.number != failed[0]:
                    raise failed[1]
                failed = None
            elif isinstance(message, Raised):
                raise OutOfStep(f"operation {message.number} failed on rank 0 alone")
            else:
                try:
                    self._do(message)
                except Exception as failure:  # noqa: BLE001  perhaps it fails everywhere: rank 0 says
                    failed = message.number, failure
                    self._tell(Raised(message.number, f"{type(failure).__name__}: {failure!s:.300}"))

    def _next(self, messages: queue.SimpleQueue[ToFollower]) -> ToFollower:
        try:
            return messages.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            mx.eval(self._latest)  # to give memory back waits for what is queued, and stops all threads meanwhile
            self._latest = mx.zeros(())
            give_back()
            return messages.get()

    def _drop(self, kvs: list[int]) -> None:
        for number in kvs:
            self._kvs.pop(number, None)

    def _do(self, operation: Operations) -> None:
        match operation:
            case Forward(_, model, kv, held, rows, positions, logits):
                self._forward(self._models[model], self._kvs[kv], held, (rows, positions), logits=logits)
            case Repeat(number, name, kv, arguments):
                self._repeat(number, name, self._kvs[kv], arguments)
            case Fresh(number, model, bits, mask_axes):
                self._kvs[number] = KV.fresh(self._models[model], bits, mask_axes)
            case Join(number):
                self._group = connect(self._seat)
                self._tell(Done(number))
            case LoadPart(number, path, dtype):
                self._models[0], nbytes = self._parts.load(Path(path), dtype, self._group, self._seat.backend)
                settle()
                self._tell(Done(number, nbytes))
            case AdaptPart(number, model, path, adapter):
                made = self._parts.adapt(self._models[0], Path(path), Path(adapter), self._group)
                self._models[model], nbytes = made
                self._tell(Done(number, nbytes))
            case Measure(_, model, bits):
                self._parts.measure(self._models[model], bits)
            case Unload(_, model):
                self._models.pop(model, None)

    def _forward(self, model: Any, kv: KV, held: int, shape: tuple[int, int], *, logits: bool) -> None:
        if kv.rows != shape[0] or held not in {-1, kv.positions}:
            raise OutOfStep(f"{kv.rows} rows hold {kv.positions} positions here, {shape[0]} hold {held} on rank 0")
        computed = forward(model, kv.layers, mx.zeros(shape, dtype=mx.uint32), self._group, logits=logits)
        if logits:
            self._latest = computed
        else:
            kv.computed()

    def _repeat(self, number: int, name: str, kv: KV, arguments: list[Any]) -> None:
        operation = getattr(KV, name, None)
        if operation is None or not getattr(operation, "recorded", False):
            raise OutOfStep(f"{name} is no operation of a KV cache")
        made = operation(kv, *[understood(it, self._kvs) for it in arguments])
        if isinstance(made, KV) and made is not kv:
            self._kvs[number] = made
