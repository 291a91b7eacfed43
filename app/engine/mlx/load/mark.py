"""What a model is told apart by: its answers, and its KV caches on disk."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec

from app.engine.disk.form import VERSION
from app.engine.options import PROMPT_LOOKUP, LoadOptions


def cache_mark(path: Path, config: dict[str, Any], options: LoadOptions, base: str = "") -> str:
    """32 hexadecimal digits that change with anything that changes a KV cache. It looks at files.

    Of weights these are names, sizes, times and, where the hub's cache has them, etags, which its files are called by.
    ``base`` is the mark of the model that an adapter adapts.
    """
    files = [_file(it) for it in sorted(path.glob("*.safetensors"))]
    versions = [VERSION, *(version(name).rpartition(".")[0] for name in ("mlx", "mlx-lm"))]
    made = [options.kv_bits, options.quantize, options.dtype, str(mx.default_device())]
    text = json.dumps([versions, base, config, files, made], default=str, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def fingerprint_of(path: Path, config: dict[str, Any], options: LoadOptions) -> str:
    """Changes with the weights' files, the configuration, the engine's versions and what was made of it on load.

    A draft counts: passes over several tokens round differently, so where two tokens are as likely it may tip scales.
    """
    made: list[Any] = [version("mlx"), version("mlx-lm"), str(mx.default_device()), options.kv_bits, options.pooling]
    if options.ranks is not None:
        made.append(msgspec.to_builtins(options.ranks))
    if options.dtype != "auto":
        made.append(options.dtype)
    if options.draft is not None:
        made += [options.draft.name, _files(options.draft.path), options.draft.quantize, options.draft.kv_bits]
    if options.lookup:
        made.append(PROMPT_LOOKUP)
    text = json.dumps([_files(path), config, *made], default=str)
    return "fp_" + hashlib.sha256(text.encode()).hexdigest()[:12]


def _files(path: Path) -> list[tuple[str, int]]:
    return sorted((f.name, f.stat().st_size) for f in path.glob("*.safetensors"))


def _file(path: Path) -> tuple[str, str, int, int]:
    known = path.stat()
    return path.name, path.resolve().name, known.st_size, known.st_mtime_ns
