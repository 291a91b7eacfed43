"""Keys, values and states as tensors of a file, byte for byte, and what is made of them again.

A state is whatever the attributes of its cache are: arrays, numbers, nothing, lists of these. Its class is never taken
from a file: it is that which the model itself makes, and a file that names another is of no use.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
from mlx_lm.models.cache import KVCache

from app.engine.disk.form import Tensor, Unusable
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.layers import parts
from app.engine.mlx.cache.segments import Cut, States

_NAMES: dict[mx.Dtype, str] = {
    mx.bool_: "BOOL",
    mx.uint8: "U8",
    mx.uint16: "U16",
    mx.uint32: "U32",
    mx.uint64: "U64",
    mx.int8: "I8",
    mx.int16: "I16",
    mx.int32: "I32",
    mx.int64: "I64",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.float32: "F32",
    mx.complex64: "C64",
}
_TYPES = {name: dtype for dtype, name in _NAMES.items()}


class Unwritable(TypeError):
    """A state holds what no file can."""


def tensor_of(array: mx.array) -> Tensor:
    """Its bytes, copied. MLX thread; it waits for the array."""
    flat = mx.contiguous(array).reshape(-1)
    return Tensor(_NAMES[array.dtype], tuple(array.shape), np.array(flat.view(mx.uint8)).data if flat.size else b"")


def array_of(tensor: Tensor) -> mx.array:
    """The same array again. MLX thread."""
    dtype = _TYPES[tensor.dtype]
    if not tensor.data:
        return mx.zeros(tensor.shape, dtype)
    return mx.array(np.frombuffer(tensor.data, np.uint8)).view(dtype).reshape(tensor.shape)


def cut_to(cut: Cut) -> tuple[list[Tensor], str]:
    """Its tensors, and what has to be known to read them."""
    return [tensor_of(array) for array in cut.arrays], msgspec.json.encode(cut.layout).decode()


def cut_of(tensors: Sequence[Tensor], more: str, tokens: int, fresh: KV) -> Cut:
    """So many ``tokens``, for the model that makes caches like ``fresh``.

    Raises :class:`app.engine.disk.form.Unusable` for what does not fit it.
    """
    try:
        layout = msgspec.json.decode(more, type=tuple[int, ...])
    except msgspec.MsgspecError as failure:
        raise Unusable("it has no layout") from failure
    layers = sum(type(part) is KVCache for part in parts(fresh.layers))
    fits = len(layout) == 2 * layers and max(layout, default=-1) + 1 == len(tensors)
    if not fits or any(len(it.shape) != 4 or it.shape[2] != tokens for it in tensors):
        raise Unusable("it is of another model")
    return Cut([array_of(tensor) for tensor in tensors], tokens, layout)


def states_to(states: States) -> tuple[list[Tensor], str]:
    """Their tensors, and the rest of what they hold. Raises :class:`Unwritable` where a file cannot hold it."""
    arrays: list[mx.array] = []
    described = [
        [type(leaf).__name__, {name: _encoded(it, arrays) for name, it in vars(leaf).items()}] for leaf in states.leaves
    ]
    return [tensor_of(array) for array in arrays], msgspec.json.encode(described).decode()


def states_of(tensors: Sequence[Tensor], more: str, fresh: KV) -> States:
    """The states of the layers that do not append, in caches like those of ``fresh``.

    Raises :class:`app.engine.disk.form.Unusable` for what does not fit them.
    """
    own = [part for part in parts(fresh.layers) if type(part) is not KVCache]
    try:
        described = msgspec.json.decode(more, type=list[tuple[str, dict[str, Any]]])
        arrays = [array_of(tensor) for tensor in tensors]
        if [type(leaf).__name__ for leaf in own] != [name for name, _ in described]:
            raise Unusable("it is of another model")
        leaves = []
        for leaf, (_, held) in zip(own, described, strict=True):
            made = copy.copy(leaf)
            vars(made).clear()
            vars(made).update({name: _held(it, arrays) for name, it in held.items()})
            leaves.append(made)
    except (msgspec.MsgspecError, IndexError, KeyError, TypeError) as failure:
        raise Unusable(f"it holds no states: {failure}") from failure
    return States(leaves)


def _encoded(value: Any, arrays: list[mx.array]) -> list[Any]:
    if isinstance(value, mx.array):
        arrays.append(value)
        return ["array", len(arrays) - 1]
    if isinstance(value, list | tuple):
        return ["list" if isinstance(value, list) else "tuple", [_encoded(it, arrays) for it in value]]
    if value is None or type(value) in (bool, int, float, str):
        return ["is", value]
    raise Unwritable(type(value).__name__)


def _held(encoded: list[Any], arrays: Sequence[mx.array]) -> Any:
    kind, value = encoded
    if kind == "array":
        return arrays[value]
    if kind in ("list", "tuple"):
        held = [_held(it, arrays) for it in value]
        return held if kind == "list" else tuple(held)
    return value
