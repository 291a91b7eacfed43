"""Checkpoints quantised when they are first loaded, kept on disk for the next time."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
from collections.abc import Generator
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import load_config, load_model, quantize_model, save_config

from app.durable import sync_path
from app.engine.mlx.load.weights import evaluated
from app.engine.mlx.memory import release

GROUP = 64
"""Weights that share a scale and a bias."""
SHARD = 64 << 20
"""Bytes written in one step."""
ABANDONED = 24 * 3600.0
"""Seconds after which a directory that never became complete is removed."""
COPIED = ("*.json", "*.jsonl", "*.txt", "*.jinja", "*.model", "*.tiktoken")


def quantised(path: Path, bits: int, cache: Path) -> Generator[None, None, Path]:
    """The directory of the model at ``path`` with ``bits`` per weight, below ``cache``; made if need be. MLX thread.

    It appears under its name when it is complete and synced. A checkpoint that is quantised already is returned as
    it is. Memory holds the quantised weights and a few tensors of the others.
    """
    config = load_config(path)
    if "quantization" in config or "quantization_config" in config:
        return path
    target = cache / f"{path.name}-{bits}bit-{_key(path, bits)}"
    if target.is_dir():
        return target
    _sweep(cache)
    part = cache / f".{target.name}.{uuid4().hex}.part"
    part.mkdir(parents=True)
    try:
        yield from _write(path, bits, part)
        _rename(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        release()
    return target


def _write(path: Path, bits: int, part: Path) -> Generator[None, None, None]:
    with redirect_stdout(io.StringIO()):  # mlx-lm prints the bits per weight
        model, config = load_model(path, lazy=True)
        model, config = quantize_model(model, config, GROUP, bits)
    yield
    weights = dict(tree_flatten(model.parameters()))
    del model
    yield from evaluated(list(weights.values()))
    shard: dict[str, Any] = {}
    number = 0
    for name in list(weights):
        shard[name] = weights.pop(name)
        if sum(array.nbytes for array in shard.values()) >= SHARD or not weights:
            number += 1
            mx.save_safetensors(str(part / f"model-{number:05d}.safetensors"), shard, metadata={"format": "mlx"})
            shard = {}
            yield
    for file in {file for pattern in COPIED for file in path.glob(pattern)}:
        if file.name not in {"config.json", "model.safetensors.index.json"}:
            shutil.copyfile(file, part / file.name)
    save_config(config, part / "config.json")
    for file in (*part.iterdir(), part):
        sync_path(file)
        yield


def _rename(part: Path, target: Path) -> None:
    try:
        part.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was first
            raise
    sync_path(target.parent)


def _key(path: Path, bits: int) -> str:
    """Changes with the weights' files, the configuration, the bits and mlx-lm."""
    files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(path.glob("*.safetensors"))]
    parts = [str(path.resolve()), files, bits, GROUP, version("mlx-lm"), (path / "config.json").read_text()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _sweep(cache: Path) -> None:
    for part in cache.glob(".*.part"):
        if time.time() - part.stat().st_mtime > ABANDONED:
            shutil.rmtree(part, ignore_errors=True)
