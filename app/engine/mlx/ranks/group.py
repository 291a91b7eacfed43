"""What every rank does alike: join the backend, compute its part of a pass, run the same versions."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import mlx.core as mx

from app import __version__
from app.engine.ranks import Seat, tidy


def connect(seat: Seat) -> Any:
    """The backend's group; waits for the other ranks. Raises RuntimeError where they cannot be reached."""
    backend = seat.backend.removesuffix("-ring")
    try:
        group = mx.distributed.init(strict=True, backend=backend)
    finally:
        tidy(seat)
    if (group.rank(), group.size()) != (seat.rank, seat.size):
        raise RuntimeError(
            f"{backend} makes this rank {group.rank()} of {group.size()}, not {seat.rank} of {seat.size}"
        )
    return group


def forward(own: Any, layers: list[Any], tokens: mx.array, group: Any, *, logits: bool) -> mx.array:
    """One rank's part of a pass; rank 0 has the ``tokens``, ``[rows, positions]`` uint32, the others as many zeros.

    Every rank evaluates the same arrays at the same place, so that collectives come in the same order everywhere: the
    tokens first, which a rank that is handed its input by another does not look at.
    """
    agreed = mx.distributed.all_sum(tokens, group=group)
    mx.async_eval(agreed)
    computed: mx.array = own(agreed, cache=layers)
    if logits:
        mx.async_eval(computed)
    return computed


def versions() -> dict[str, str]:
    """What every rank must run alike: all compute the same graph, and understand each other."""
    return {
        "mlx": version("mlx"),
        "mlx-lm": version("mlx-lm"),
        "switchyard": __version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
