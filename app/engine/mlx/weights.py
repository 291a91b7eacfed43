"""Weights from disk into memory in short steps, so that models that are running hardly notice."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model
from msgspec import Struct

from app.engine.mlx.aside import Aside
from app.engine.mlx.kv import KV
from app.engine.mlx.memory import half_bytes

PAGE = 8 << 20
"""Bytes read at once when the system's page cache is warmed."""


class Loaded(Struct, frozen=True):
    """A resident model and what was measured of it: KV cache bytes of one token, width of the logits."""

    model: Any
    nbytes: int
    kv_bytes_per_token: int
    vocabulary: int


def warm_pages(path: Path) -> None:
    """Read the weights' files through, so that making them resident does not wait for the disk. Any thread."""
    buffer = bytearray(PAGE)
    for file in sorted(path.glob("model*.safetensors")):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def load_in_steps(path: Path, aside: Aside) -> Generator[None, None, Loaded]:
    """Build the model lazily, then evaluate its weights beside what runs, then run it once. MLX thread."""
    with mx.stream(aside.stream):
        model, _ = load_model(path, lazy=True)
    yield
    if half_bytes() > 2:
        with mx.stream(aside.stream):
            model.set_dtype(mx.float32)  # float16 and bfloat16 are emulated there, many times slower
    arrays = [array for _, array in tree_flatten(model.parameters())]
    yield from aside.evaluate(arrays)
    yield
    kv = KV.fresh(model)
    vocabulary = yield from _warm_up(model, kv)
    return Loaded(model, sum(array.nbytes for array in arrays), kv.bytes_per_token(), vocabulary)


def _warm_up(model: Any, kv: KV) -> Generator[None, None, int]:
    """Compile the kernels of prefill and decode by using them; how wide the logits are.

    A CPU has none to compile, and shapes are known without computing, so that nothing is computed there.
    """
    logits = mx.zeros(())
    for tokens in (8, 1):
        logits = model(mx.zeros((1, tokens), dtype=mx.uint32), cache=kv.layers)[:, -1]
        if mx.default_device() != mx.Device(mx.cpu):
            mx.eval(logits, kv.arrays)
        yield
    return int(logits.shape[-1])
