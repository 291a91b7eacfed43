"""LoRA adapters on a base that is resident already: a second tree of modules over the same arrays."""

from __future__ import annotations

import copy
from collections.abc import Generator
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.utils import load_adapters
from msgspec.structs import replace

from app.engine.mlx.load.self_check import checked
from app.engine.mlx.load.weights import evaluated, measured
from app.engine.mlx.loaded import Loaded
from app.engine.mlx.memory import half_bytes

HALVES = (mx.float16, mx.bfloat16)


def adapt(base: Loaded, path: Path, kv_bits: int | None = None) -> Generator[None, None, Loaded]:
    """``base`` with mlx-lm's adapter at ``path`` (adapters.safetensors, adapter_config.json). MLX thread.

    The base's arrays are shared and never written; ``nbytes`` counts the adapter's own alone. Raises ValueError or
    KeyError for an adapter that does not fit the base, and what :func:`app.engine.mlx.load.weights.measured` does.
    """
    shared = {id(array): array for _, array in tree_flatten(base.model.parameters())}
    model: Any = copy.deepcopy(base.model, dict(shared))
    model = load_adapters(model, str(path))
    if half_bytes() > 2:
        wide = [(name, it.astype(mx.float32)) for name, it in _own(model, shared) if it.dtype in HALVES]
        model.update(tree_unflatten(wide))
    model.eval()
    own = [array for _, array in _own(model, shared)]
    yield from evaluated(own)
    made = yield from measured(model, sum(array.nbytes for array in own), kv_bits, base.scratch)
    if kv_bits == base.kv_bits:
        return replace(made, abilities=base.abilities)
    return replace(made, abilities=(yield from checked(model, made.vocabulary, kv_bits)))


def _own(model: Any, shared: dict[int, Any]) -> list[tuple[str, Any]]:
    return [(name, array) for name, array in tree_flatten(model.parameters()) if id(array) not in shared]
