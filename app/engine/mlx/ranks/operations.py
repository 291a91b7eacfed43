"""What rank 0 tells the others, and what they tell it. Each message is an array whose first element names its kind.

Operations are numbered from 1 on. A KV cache is known by the number of the operation that made it, a model by its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from app.engine.facts import Limits
from app.engine.mlx.cache.kv import KV
from app.engine.options import DType


class Operation(Struct, frozen=True, array_like=True):
    """Something that is done everywhere, in this order."""

    number: int


class Join(Operation, frozen=True, array_like=True, tag="join"):
    """Connect the backend; answered by :class:`Done`."""


class LoadPart(Operation, frozen=True, array_like=True, tag="load"):
    """Load this rank's part of a model, which is number 0; answered by :class:`Done` with its bytes."""

    path: str
    dtype: DType


class AdaptPart(Operation, frozen=True, array_like=True, tag="adapt"):
    """The base with an adapter, as ``model``; answered by :class:`Done` with the adapter's own bytes."""

    model: int
    path: str
    adapter: str


class Measure(Operation, frozen=True, array_like=True, tag="measure"):
    """What computing takes is measured; see :func:`app.engine.mlx.load.share.scratch_of_part`."""

    model: int
    bits: int | None


class Unload(Operation, frozen=True, array_like=True, tag="unload"):
    """Let an adapted model go."""

    model: int


class Fresh(Operation, frozen=True, array_like=True, tag="fresh"):
    """An empty KV cache for one row; see :meth:`app.engine.mlx.cache.kv.KV.fresh`."""

    model: int
    bits: int | None
    mask_axes: int


class Forward(Operation, frozen=True, array_like=True, tag="forward"):
    """A pass over ``rows`` times ``positions`` tokens, which rank 0 sends through the backend.

    With ``logits`` these are computed, else keys and values alone. ``held`` are the positions that ``kv`` holds before,
    -1 where each rank has layers of its own, which may count differently.
    """

    model: int
    kv: int
    held: int
    rows: int
    positions: int
    logits: bool


class Repeat(Operation, frozen=True, array_like=True, tag="repeat"):
    """``KV.name(kv, *arguments)``, arguments as :func:`encoded` has them; it has the operation's number."""

    name: str
    kv: int
    arguments: list[Any]


class Raised(Operation, frozen=True, array_like=True, tag="raised"):
    """The operation of that number has failed here; all go on if it has failed everywhere."""

    reason: str = ""


class Limit(Struct, frozen=True, array_like=True, tag="limit"):
    """What each rank may take from now on."""

    limits: Limits


class Watch(Struct, frozen=True, array_like=True, tag="watch"):
    """So many seconds of silence are too long from now on."""

    silence: float


class Drop(Struct, frozen=True, array_like=True, tag="drop"):
    """Half a second has passed; these KV caches are not used any more."""

    kvs: list[int]


class Beat(Struct, frozen=True, array_like=True, tag="beat"):
    """A rank is alive; its memory in bytes."""

    pid: int
    resident: int
    active: int
    pool: int


class Done(Struct, frozen=True, array_like=True, tag="done"):
    """An operation that is answered has succeeded."""

    number: int
    nbytes: int = 0


class Failed(Struct, frozen=True, array_like=True, tag="failed"):
    """This rank ends, and why."""

    reason: str


Operations = Join | LoadPart | AdaptPart | Measure | Unload | Fresh | Forward | Repeat | Raised
ToFollower = Operations | Limit | Watch | Drop
ToLeader = Beat | Done | Raised | Failed

_ENCODER = msgspec.msgpack.Encoder()


def framed(message: ToFollower | ToLeader) -> bytes:
    """A message as it is written, for :class:`app.engine.framing.Frames`."""
    body = _ENCODER.encode(message)
    return len(body).to_bytes(4, "big") + body


def encoded(argument: object, number_of: Callable[[KV], int]) -> Any:
    """An argument on its way: numbers and lists as they are, a KV cache by its number."""
    match argument:
        case KV():
            return {"kv": number_of(argument)}
        case list() | tuple():
            return [encoded(it, number_of) for it in argument]
        case None | bool() | int():
            return argument
    raise TypeError(f"{type(argument).__name__} cannot be told to other ranks.")


def understood(argument: Any, kvs: Mapping[int, KV]) -> Any:
    """The argument again."""
    match argument:
        case {"kv": number}:
            return kvs[number]
        case list():
            return [understood(it, kvs) for it in argument]
    return argument


def model_path(path: Path) -> str:
    """A model's directory as it is told; every rank finds it at the same place."""
    return str(path.resolve())
