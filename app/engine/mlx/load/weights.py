"""Weights from disk into memory in short steps, each of which shows that the load goes on."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.utils import load_model
from msgspec.structs import replace

from app.engine.mlx.cache.classes import attend_by_class
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.law import law_of
from app.engine.mlx.load.findings import Findings
from app.engine.mlx.load.reasons import Unbuilt
from app.engine.mlx.load.scratch import REVISION, scratch_of
from app.engine.mlx.load.self_check import checked
from app.engine.mlx.loaded import Loaded, ScratchLaw
from app.engine.mlx.memory import emulates_bfloat16, half_bytes
from app.engine.options import DType

PAGE = 8 << 20
"""Bytes read at once when the system's page cache is warmed."""
FLOAT16_MOST = 65504.0
STEP = 64 << 20
"""Bytes of weights that are made real in one step."""


class KVBitsRefused(ValueError):
    """A model that runs, but not with a KV cache of few bits."""


def warm_pages(path: Path) -> None:
    """Read the weights' files through, ahead of whoever makes them resident, who then waits less. Any thread."""
    buffer = bytearray(PAGE)
    for file in sorted(path.glob("model*.safetensors")):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def load_in_steps(path: Path, kv_bits: int | None = None, dtype: DType = "auto") -> Generator[None, None, Loaded]:
    """Build the model lazily, then evaluate its weights a few at a time, then run it once. MLX thread.

    Raises as :func:`measured` does.
    """
    started = time.perf_counter()
    try:
        model, _ = load_model(path, lazy=True)
    except ValueError as failure:
        raise Unbuilt(str(failure)) from failure
    yield
    widen_or_convert(model, dtype)
    arrays = [array for _, array in tree_flatten(model.parameters())]
    yield from evaluated(arrays)
    config = (path / "config.json").read_bytes()
    findings = Findings(ScratchLaw, model, config, kv_bits, REVISION)
    known = findings.read()
    made = yield from measured(model, sum(array.nbytes for array in arrays), kv_bits, known)
    if known is None:
        findings.write(made.scratch)
    seconds = time.perf_counter() - started
    abilities = yield from checked(model, made.vocabulary, kv_bits, config=config, load_seconds=seconds)
    return replace(made, abilities=abilities)


def widen_or_convert(model: Any, dtype: DType) -> None:
    """Give a model the type that it computes in; lazily.

    On a CPU that is float32, since types of 16 bits are emulated there, many times slower. Elsewhere only what has 16
    bits is changed: what a checkpoint keeps in 32, such as a router's bias or a recurrent layer's decay, needs them,
    and so does what float16 cannot hold. ``auto`` takes float16 for bfloat16 on the chips that emulate the latter.
    """
    if half_bytes() > 2:
        model.set_dtype(mx.float32)
        return
    wanted = {"float16": mx.float16, "bfloat16": mx.bfloat16}.get(dtype)
    if wanted is None and emulates_bfloat16():
        wanted = mx.float16
    if wanted is not None:
        changed = [(name, converted(array, wanted)) for name, array in tree_flatten(model.parameters())]
        model.update(tree_unflatten(changed))


def converted(array: mx.array, wanted: mx.Dtype) -> mx.array:
    """An array of 16 bits in the other type of 16 bits; any other, and one that float16 cannot hold, as it is."""
    if array.dtype == wanted or array.dtype not in {mx.float16, mx.bfloat16}:
        return array
    if wanted == mx.float16 and mx.max(mx.abs(array)).item() > FLOAT16_MOST:
        return array.astype(mx.float32)
    return array.astype(wanted)


def evaluated(arrays: Sequence[Any]) -> Generator[None, None, None]:
    """Make lazy arrays real, about ``STEP`` bytes at a time."""
    some: list[Any] = []
    size = 0
    for array in arrays:
        some.append(array)
        size += array.nbytes
        if size >= STEP:
            mx.eval(some)
            some, size = [], 0
            yield
    mx.eval(some)
    yield


def measured(
    model: Any, nbytes: int, kv_bits: int | None, scratch: ScratchLaw | None = None
) -> Generator[None, None, Loaded]:
    """Run a model of ``nbytes`` once, to warm it up and to see what it takes. MLX thread.

    What computing takes is measured unless it is known. Raises :class:`KVBitsRefused` for one that runs only without
    ``kv_bits``.
    """
    attend_by_class(model)
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
    law = law_of(kv)
    if scratch is None:
        scratch = yield from scratch_of(model, kv)
    made = Loaded(model, nbytes, kv.bytes_per_token(), vocabulary, _embedded_tokens(model, vocabulary), kv_bits)
    return replace(made, law=law, scratch=scratch)


def _embedded_tokens(model: Any, vocabulary: int) -> int:
    """Rows of the token embedding: of the largest one, since position embeddings are smaller; ``vocabulary`` if none.

    A quantised weight keeps its rows.
    """
    tables = [it.weight for _, it in model.named_modules() if isinstance(it, (nn.Embedding, nn.QuantizedEmbedding))]
    return max((int(table.shape[0]) for table in tables), default=vocabulary)


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
