"""Weights from disk into memory in short steps, so that models that are running hardly notice."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model
from msgspec import Struct

from app.engine.mlx.kv import KV

STEP_SECONDS = 0.03
"""What one step may take away from running streams; a single array larger than that takes longer."""
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


def load_in_steps(path: Path) -> Generator[None, None, Loaded]:
    """Build the model lazily, then evaluate its weights a few at a time, then run it once. MLX thread."""
    model, _ = load_model(path, lazy=True)
    yield
    if mx.default_device() == mx.Device(mx.cpu):
        model.set_dtype(mx.float32)  # float16 and bfloat16 are emulated there, many times slower
    arrays = [array for _, array in tree_flatten(model.parameters())]
    started = time.perf_counter()
    for array in arrays:
        mx.eval(array)
        if time.perf_counter() - started > STEP_SECONDS:
            yield
            started = time.perf_counter()
    yield
    kv = KV.fresh(model)
    vocabulary = yield from _warm_up(model, kv)
    return Loaded(model, sum(array.nbytes for array in arrays), kv.bytes_per_token(), vocabulary)


def _warm_up(model: Any, kv: KV) -> Generator[None, None, int]:
    """Compile the kernels of prefill and decode by using them; how wide the logits are."""
    logits = mx.zeros(())
    for tokens in (mx.zeros((1, 8), dtype=mx.uint32), mx.zeros((1, 1), dtype=mx.uint32)):
        logits = model(tokens, cache=kv.layers)[:, -1]
        mx.eval(logits, kv.arrays)
        yield
    return int(logits.shape[-1])
