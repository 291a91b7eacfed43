"""Weights from disk into memory in short steps, so that models that are running hardly notice."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model
from msgspec.structs import replace

from app.engine.mlx.cache.kv import KV
from app.engine.mlx.load.aside import Aside
from app.engine.mlx.load.self_check import checked
from app.engine.mlx.loaded import Loaded
from app.engine.mlx.memory import half_bytes

PAGE = 8 << 20
"""Bytes read at once when the system's page cache is warmed."""


class KVBitsRefused(ValueError):
    """A model that runs, but not with a KV cache of few bits."""


def warm_pages(path: Path) -> None:
    """Read the weights' files through, so that making them resident does not wait for the disk. Any thread."""
    buffer = bytearray(PAGE)
    for file in sorted(path.glob("model*.safetensors")):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def load_in_steps(path: Path, aside: Aside, kv_bits: int | None = None) -> Generator[None, None, Loaded]:
    """Build the model lazily, then evaluate its weights beside what runs, then run it once. MLX thread.

    Raises as :func:`measured` does.
    """
    started = time.perf_counter()
    with mx.stream(aside.stream):
        model, _ = load_model(path, lazy=True)
    yield
    if half_bytes() > 2:
        with mx.stream(aside.stream):
            model.set_dtype(mx.float32)  # float16 and bfloat16 are emulated there, many times slower
    arrays = [array for _, array in tree_flatten(model.parameters())]
    yield from aside.evaluate(arrays)
    yield
    made = yield from measured(model, sum(array.nbytes for array in arrays), kv_bits)
    config, seconds = (path / "config.json").read_bytes(), time.perf_counter() - started
    abilities = yield from checked(model, made.vocabulary, kv_bits, config=config, load_seconds=seconds)
    return replace(made, abilities=abilities)


def measured(model: Any, nbytes: int, kv_bits: int | None) -> Generator[None, None, Loaded]:
    """Run a model of ``nbytes`` once, to warm it up and to see what it takes. MLX thread.

    Raises :class:`KVBitsRefused` for one that runs only without ``kv_bits``.
    """
    kv = KV.fresh(model, kv_bits)
    try:
        if kv_bits is not None and not kv.quantised_layers:
            raise ValueError("none of its layers keeps all keys and values")
        vocabulary = yield from _warm_up(model, kv)
    except (ValueError, TypeError, AttributeError, LookupError, RuntimeError) as failure:
        if kv_bits is None:
            raise
        yield from _warm_up(model, KV.fresh(model))  # what is wrong without kv_bits as well is told as what it is
        raise KVBitsRefused(f"kv_bits = {kv_bits} does not suit it: {failure}") from failure
    return Loaded(model, nbytes, kv.bytes_per_token(), vocabulary, kv_bits)


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
