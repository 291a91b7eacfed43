"""From a model directory to a resident engine."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Generator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import load_config, load_model

from app.engine.mlx.batch import ModelBatch
from app.engine.mlx.engine import MLXEngine
from app.engine.mlx.kv import KV
from app.engine.mlx.memory import release
from app.engine.mlx.prefix_cache import PrefixCache
from app.engine.mlx.thread import MLXThread
from app.engine.mlx.tokenizer import MLXTokenizer
from app.errors import ModelUnusable

LOAD_SLICE = 64 << 20
"""Bytes of weights made resident between two decode steps of running models."""
DEFAULT_CONTEXT = 4096
"""For configurations that do not say how long their context is."""


class MLXLoader:
    """Implements :class:`app.engine.base.EngineLoader`: every model on one MLX thread."""

    def __init__(self, thread: MLXThread, *, max_rows: int, slice_tokens: int, prefix_bytes: int) -> None:
        self._thread = thread
        self._max_rows = max_rows
        self._slice_tokens = slice_tokens
        self._prefix_bytes = prefix_bytes

    async def load(self, path: Path, *, name: str) -> MLXEngine:
        """Weights on the MLX thread in slices, the tokenizer beside them on another."""
        try:
            config = await asyncio.to_thread(load_config, path)
            tokenizer = asyncio.create_task(asyncio.to_thread(MLXTokenizer.load, path, config.get("eos_token_id")))
            weights = self._thread.run_in_steps(_load(path))
            done = await asyncio.gather(weights, tokenizer, return_exceptions=True)
            for result in done:
                if isinstance(result, BaseException):
                    del done
                    raise result
            return await self._thread.call(lambda: self._engine(path, config, done[0], done[1]))
        except (ValueError, TypeError, KeyError, OSError, RuntimeError, AttributeError, IndexError) as failure:
            await self._thread.call(release)
            raise ModelUnusable(
                f"The model '{name}' cannot be loaded: {_reason(failure, path)}. Name another one or repair it.",
                param="model",
            ) from failure

    async def close(self) -> None:
        """End the MLX thread."""
        await self._thread.close()

    def _engine(self, path: Path, config: dict[str, Any], model: Any, tokenizer: Any) -> MLXEngine:
        return MLXEngine(
            self._thread,
            ModelBatch(
                self._thread,
                model,
                PrefixCache(self._prefix_bytes),
                max_rows=self._max_rows,
                slice_tokens=self._slice_tokens,
            ),
            tokenizer,
            context_length=_context_length(config),
            nbytes=sum(array.nbytes for _, array in tree_flatten(model.parameters())),
            kv_bytes_per_token=_warm_up(model),
            fingerprint=_fingerprint(path, config),
        )


def _load(path: Path) -> Generator[None, None, Any]:
    """Build the model lazily, then make its weights resident piece by piece."""
    model, _ = load_model(path, lazy=True)
    yield
    if mx.default_device() == mx.Device(mx.cpu):
        model.set_dtype(mx.float32)  # float16 and bfloat16 are emulated there, many times slower
    piece: list[mx.array] = []
    for _, array in tree_flatten(model.parameters()):
        piece.append(array)
        if sum(a.nbytes for a in piece) >= LOAD_SLICE:
            mx.eval(piece)
            piece = []
            yield
    mx.eval(piece)
    return model


def _warm_up(model: Any) -> int:
    """Compile the kernels of prefill and decode; the KV cache bytes of one token, by measurement."""
    kv = KV.fresh(model)
    for tokens in (mx.zeros((1, 8), dtype=mx.uint32), mx.zeros((1, 1), dtype=mx.uint32)):
        mx.eval(model(tokens, cache=kv.layers)[:, -1], kv.arrays)
    return kv.bytes_per_token()


def _context_length(config: dict[str, Any]) -> int:
    text = config.get("text_config", {})
    for source in (config, text):
        for key in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx"):
            if isinstance(source.get(key), int):
                return int(source[key])
    return DEFAULT_CONTEXT


def _fingerprint(path: Path, config: dict[str, Any]) -> str:
    """Changes with the weights' files, the configuration and the engine's versions."""
    files = sorted((f.name, f.stat().st_size) for f in path.glob("*.safetensors"))
    told = json.dumps([files, config, version("mlx"), version("mlx-lm"), str(mx.default_device())], default=str)
    return "fp_" + hashlib.sha256(told.encode()).hexdigest()[:12]


def _reason(failure: Exception, path: Path) -> str:
    """The failure's first line, without the place on disk."""
    text = str(failure).strip().splitlines() or [type(failure).__name__]
    return text[0].replace(str(path), "the model's directory")[:300].rstrip(".")
