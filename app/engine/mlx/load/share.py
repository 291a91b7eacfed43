"""One rank's part of a model: built lazily, divided, then made real piece by piece, so that no rank holds the whole."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.utils import load_model
from msgspec.structs import replace

from app.engine.mlx.cache.classes import attend_by_class
from app.engine.mlx.cache.journal import SharedModel
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.load.scratch import FEW, scratch_of
from app.engine.mlx.load.self_check import checked
from app.engine.mlx.load.weights import load_in_steps, measured, widen_or_convert
from app.engine.mlx.loaded import Loaded, ScratchLaw
from app.engine.mlx.ranks.leader import Leader
from app.engine.mlx.ranks.operations import LoadPart, Measure, model_path
from app.engine.options import DType, LoadOptions
from app.engine.ranks import Backend

HEADS = ("num_attention_heads", "num_key_value_heads", "n_head")
"""What configurations call the heads that are shared out."""


T = TypeVar("T")


class ShareRefused(ValueError):
    """A model that runs, but not divided so."""


def divided(path: Path, dtype: DType, group: Any, backend: Backend) -> Any:
    """This rank's part, nothing of it real yet. MLX thread. Raises :class:`ShareRefused`, and what building it raises.

    Layers are divided where the model knows how to and its heads allow it, else each rank has some of them, where the
    backend can send.
    """
    model, config = load_model(path, lazy=True)
    widen_or_convert(model, dtype)
    ranks, whole = group.size(), {name: array.shape for name, array in tree_flatten(model.parameters())}
    uneven = _uneven(config, ranks)
    if callable(getattr(model, "shard", None)) and uneven is None:
        way = model.shard
    elif callable(getattr(getattr(model, "model", None), "pipeline", None)) and backend != "nccl":
        way = model.model.pipeline
    else:
        kind, handed = config.get("model_type", "its kind"), hasattr(getattr(model, "model", None), "pipeline")
        nccl = "its layers can only be handed from rank to rank, which NCCL does not"
        raise ShareRefused(uneven or (nccl if handed else f"mlx-lm knows no way to divide models of type {kind}"))
    try:
        way(group)
    except (ValueError, IndexError, KeyError, AttributeError, TypeError) as failure:
        raise ShareRefused(f"it cannot be divided over {ranks} ranks: {failure}") from failure
    attend_by_class(model)
    parts = [(name, it) for name, it in tree_flatten(model.parameters()) if it.shape != whole.get(name)]
    model.update(tree_unflatten([(name, _alone(part)) for name, part in parts]))
    return model


def _alone(part: mx.array) -> mx.array:
    """A copy, lazily: what is cut off an array keeps all of it in memory otherwise."""
    return mx.concatenate([part, part[:0]])


def _uneven(config: dict[str, Any], ranks: int) -> str | None:
    """Which heads cannot be shared out evenly, if any."""
    for source in (config, config.get("text_config") or {}):
        for name in HEADS:
            heads = source.get(name)
            if isinstance(heads, int) and heads % ranks:
                return f"{name} = {heads} cannot be divided by {ranks} ranks"
    return None


def pipelined(own: Any) -> bool:
    """Whether each rank has some of the layers, instead of a part of each."""
    return bool(getattr(getattr(own, "model", None), "pipeline_size", 1) > 1)


def made_real(model: Any) -> Generator[None, None, int]:
    """Read and divide its weights one by one, the largest first: what is read of each is more than what is kept.

    Returns the bytes that are held then.
    """
    arrays = sorted((array for _, array in tree_flatten(model.parameters())), key=lambda it: -it.nbytes)
    nbytes = 0
    for array in arrays:
        mx.eval(array)
        mx.clear_cache()
        nbytes += array.nbytes
        yield
    return nbytes


def loading(path: Path, options: LoadOptions, leader: Leader | None) -> Generator[None, None, Loaded]:
    """The steps in which a model's weights are loaded, here alone or on every rank."""
    if leader is None:
        return load_in_steps(path, options.kv_bits, options.dtype)
    return load_parts(leader, path, options)


def load_parts(leader: Leader, path: Path, options: LoadOptions) -> Generator[None, None, Loaded]:
    """The model on every rank, each loading its part at the same time as the others. MLX thread of rank 0.

    What it takes is this rank's alone. Raises as :func:`divided` does, as
    :meth:`app.engine.mlx.ranks.leader.Leader.gather` does, and as :func:`app.engine.mlx.load.weights.measured`.
    """
    yield from leader.gather()
    started = time.perf_counter()
    own = divided(path, options.dtype, leader.group, leader.seat.backend)
    leader.path = model_path(path)
    asked = leader.tell(lambda number: LoadPart(number, leader.path, options.dtype))
    nbytes = yield from made_real(own)
    yield from leader.wait(asked)
    shared = SharedModel(own, leader, 0, whole_layers=pipelined(own))
    made = yield from measured(shared, nbytes, options.kv_bits, ScratchLaw())
    leader.tell(lambda number: Measure(number, 0, options.kv_bits))
    scratch = yield from scratch_of_part(own, options.kv_bits)
    config, seconds = (path / "config.json").read_bytes(), time.perf_counter() - started
    abilities = yield from checked(shared, made.vocabulary, options.kv_bits, config=config, load_seconds=seconds)
    return replace(made, scratch=scratch, abilities=abilities)


def scratch_of_part(own: Any, kv_bits: int | None) -> Generator[None, None, ScratchLaw]:
    """What computing takes of this rank's memory; all ranks measure it at the same time, by the same passes."""
    kv = KV.fresh(own, kv_bits)
    own(mx.zeros((1, FEW), dtype=mx.uint32), cache=kv.layers)
    mx.eval(kv.arrays)
    return (yield from scratch_of(own, kv, doubt=True))


def exhausted(steps: Generator[None, None, T]) -> T:
    """What steps return that nobody else waits between."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: T = end.value
            return made
