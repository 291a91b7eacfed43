"""From a model directory to an engine of this process."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx

from app.engine.disk.store import DiskStore
from app.engine.kind import Kind
from app.engine.mlx.batch.batch import ModelBatch
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.device_errors import out_of_memory
from app.engine.mlx.draw.step import prepare
from app.engine.mlx.encode.engine import MLXEncoder
from app.engine.mlx.guide.compiler import GrammarCompiler
from app.engine.mlx.load.encoder import load_encoder
from app.engine.mlx.load.mark import cache_mark, fingerprint_of
from app.engine.mlx.load.quantise import quantised
from app.engine.mlx.load.reasons import read_config, reason
from app.engine.mlx.load.share import loading
from app.engine.mlx.load.share_adapter import adapting
from app.engine.mlx.load.warm_up import warm_up, warm_up_further
from app.engine.mlx.load.weights import KVBitsRefused, load_in_steps, warm_pages
from app.engine.mlx.loaded import Loaded
from app.engine.mlx.memory import compiles_kernels, release, settle, trim_heap
from app.engine.mlx.ranks.leader import Leader
from app.engine.mlx.speculate.draft import Draft, DraftRefused, common_vocabulary, usable
from app.engine.mlx.speculate.speculation import drafter_for
from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.engine.mlx.text.tokenizer_cache import TokenizerCache
from app.engine.options import AS_IT_IS, Batching, DraftOptions, LoadOptions
from app.engine.paths import cache_home
from app.errors import ModelUnusable, SwitchyardError, Unavailable

SLICE, CUDA_SLICE = 512, 2048
"""Most prompt tokens computed at once while rows decode, where the settings say nothing. On CUDA a slice of 512 is over
before its graph is built; its time is bounded by :mod:`app.engine.mlx.prefill.slice_size` anyway.
"""
DEFAULT_CONTEXT = 4096
"""For configurations that do not say how long their context is."""

E = TypeVar("E", MLXEngine, MLXEncoder)
log = logging.getLogger(__name__)


class MLXLoader:
    """A base model and its adapters, on one MLX thread.

    Whatever is raised while files are read, imported or made a model of is :class:`app.errors.ModelUnusable`, or
    :class:`app.errors.Unavailable` where memory was short. What is quantised on load is kept below ``cache``.
    With a ``leader`` the model lies on several ranks, of which this process is the first.
    """

    def __init__(
        self,
        thread: MLXThread,
        prefixes: PrefixPool,
        batching: Batching,
        *,
        cache: Path | None = None,
        leader: Leader | None = None,
    ) -> None:
        self._thread = thread
        self._leader = leader
        self._prefixes = prefixes
        self._batching = batching
        self._tokenizers = TokenizerCache()
        self._in_vain = False
        """Whether a tokenizer was read ahead that this model has not."""
        self._cache = cache_home() / "quantised" if cache is None else cache

    async def load(self, path: Path, *, name: str, options: LoadOptions = AS_IT_IS) -> MLXEngine:
        """Weights on the MLX thread in slices, the tokenizer beside them on another."""
        return await self._ready(
            self._load(path, name, usable(options, name, divided=self._leader is not None)), name, path
        )

    async def encoder(self, path: Path, kind: Kind, *, name: str, options: LoadOptions = AS_IT_IS) -> MLXEncoder:
        """The same for a model that makes vectors or scores."""
        return await self._ready(self._encoder(path, kind, name, options), name, path)

    async def adapt(self, base: MLXEngine, path: Path, *, name: str, options: LoadOptions = AS_IT_IS) -> MLXEngine:
        """An engine of its own over the base's arrays."""
        return await self._ready(
            self._adapt(base, path, name, usable(options, name, divided=self._leader is not None)), name, path
        )

    async def _load(self, path: Path, name: str, options: LoadOptions) -> MLXEngine:
        if options.quantize is not None:
            path = await self._thread.run_in_steps(quantised(path, options.quantize, self._cache))
        config = await asyncio.to_thread(read_config, path)
        reading = asyncio.create_task(self._tokenizers.load(path, config.get("eos_token_id")))
        draft = None if options.draft is None else await self._draft(options.draft, await reading)
        weights = self._thread.run_in_steps(loading(path, options, self._leader))
        beside = asyncio.to_thread(warm_pages, path), asyncio.to_thread(prepare)
        await asyncio.gather(weights, reading, *beside, return_exceptions=True)
        loaded, tokenizer = weights.result(), reading.result()
        self._in_vain = self._tokenizers.clear(path, *(() if options.draft is None else (options.draft.path,)))
        length, fingerprint = _context_length(config), fingerprint_of(path, config, options)
        mark = cache_mark(path, config, options)
        own = partial(self._engine, name, loaded, tokenizer, length, fingerprint, mark, draft, lookup=options.lookup)
        return await self._thread.call(own)

    async def _encoder(self, path: Path, kind: Kind, name: str, options: LoadOptions) -> MLXEncoder:
        config = await asyncio.to_thread(read_config, path)
        mark = fingerprint_of(path, config, options)
        self._in_vain = self._tokenizers.clear()
        return await load_encoder(self._thread, path, config, options, name=name, kind=kind, fingerprint=mark)

    async def _adapt(self, base: MLXEngine, path: Path, name: str, options: LoadOptions) -> MLXEngine:
        config = json.loads(await asyncio.to_thread((path / "adapter_config.json").read_text))
        tokenizer, length = base.tokenizer, base.context_length
        draft = None if options.draft is None else await self._draft(options.draft, tokenizer)
        loaded = await self._thread.run_in_steps(adapting(base.loaded, path, options.kv_bits, self._leader))
        fingerprint = fingerprint_of(path, {"base": base.fingerprint, "adapter": config}, options)
        mark = cache_mark(path, config, options, base.mark)
        own = partial(self._engine, name, loaded, tokenizer, length, fingerprint, mark, draft, lookup=options.lookup)
        return await self._thread.call(own)

    async def _draft(self, draft: DraftOptions, target: MLXTokenizer) -> Draft:
        """The weights of the model that drafts, once its tokens are known to be those of ``target``."""
        path = draft.path
        try:
            if draft.quantize is not None:
                path = await self._thread.run_in_steps(quantised(path, draft.quantize, self._cache))
            config = await asyncio.to_thread(read_config, path)
            tokenizer = await self._tokenizers.load(path, config.get("eos_token_id"))
            vocabulary = await asyncio.to_thread(common_vocabulary, target, tokenizer, draft.name)
            await asyncio.to_thread(warm_pages, path)
            loaded = await self._thread.run_in_steps(load_in_steps(path, draft.kv_bits))
        except (DraftRefused, SwitchyardError):
            raise
        except (Exception, SystemExit) as failure:
            if out_of_memory(failure):
                raise
            why = reason(failure, draft.path)
            raise DraftRefused(f"draft_model = '{draft.name}' cannot be loaded: {why}") from failure
        return Draft(draft.name, loaded, vocabulary, _context_length(config))

    async def _ready(self, loading: Coroutine[None, None, E], name: str, path: Path) -> E:
        """What was loaded, warmed up; whatever goes wrong, told with the model's name and without its place."""
        try:
            engine = await loading
        except (SwitchyardError, asyncio.CancelledError):
            raise
        except BaseException as failure:
            if out_of_memory(failure):
                raise Unavailable(
                    f"The machine ran out of memory while '{name}' was being loaded. Try again once other models are "
                    "unloaded, or name a smaller one.",
                    code="out_of_memory",
                    retry_after=5.0,
                ) from failure
            log.debug("%s cannot be loaded", name, exc_info=True)
            advice = "Name another one or repair it"
            if isinstance(failure, KVBitsRefused):
                advice = "Take kv_bits out of its entry in models.toml, or name another one"
            if isinstance(failure, DraftRefused):
                advice = "Take draft_model out of its entry in models.toml, or name another draft there"
            raise ModelUnusable(
                f"The model '{name}' cannot be loaded: {reason(failure, path)}. {advice}.", param="model"
            ) from failure
        if isinstance(engine, MLXEngine) and compiles_kernels():
            await warm_up(engine)
        if self._leader is not None:
            await self._thread.call(self._leader.loaded)
        await self._thread.call(release if self._in_vain else settle)
        self._in_vain = False
        if isinstance(engine, MLXEngine) and compiles_kernels():
            engine.go_further(warm_up_further(engine))
        return engine

    async def read_tokenizer(self, path: Path) -> None:
        """Read the tokenizer of a model that may be loaded next, so that its load need not."""
        config = await asyncio.to_thread(read_config, path)
        await self._tokenizers.load(path, config.get("eos_token_id"))
        await asyncio.to_thread(trim_heap)

    async def close(self) -> None:
        """End the MLX thread."""
        await self._thread.close()

    def _engine(  # noqa: PLR0917  what was read of a model
        self,
        name: str,
        loaded: Loaded,
        tokenizer: MLXTokenizer,
        context_length: int,
        fingerprint: str,
        mark: str,
        draft: Draft | None,
        *,
        lookup: bool,
    ) -> MLXEngine:
        slice_tokens = self._batching.slice_tokens or (CUDA_SLICE if mx.cuda.is_available() else SLICE)
        drafter = drafter_for(loaded, draft, self._prefixes, slice_tokens, lookup=lookup)
        room = self._batching.disk if self._leader is None else None  # each rank would have to file its own part
        if loaded.kv_bits is not None:
            kv = KV.fresh(loaded.model, loaded.kv_bits)
            message = "%s holds the KV cache of %d of its %d layers in %d bits per value; any others stay as they are"
            log.info(message, name, kv.quantised_layers, len(kv.layers), loaded.kv_bits)
        return MLXEngine(
            self._thread,
            ModelBatch(
                self._thread,
                loaded,
                self._prefixes,
                max_rows=self._batching.max_rows,
                slice_tokens=slice_tokens,
                drafter=drafter,
                store=None if room is None else DiskStore(Path(room.folder), mark, room.nbytes),
            ),
            tokenizer,
            GrammarCompiler(tokenizer.serialized, vocabulary=loaded.vocabulary, eos_ids=tokenizer.eos_ids),
            loaded=loaded,
            context_length=context_length,
            fingerprint=fingerprint,
            mark=mark,
        )


def _context_length(config: dict[str, Any]) -> int:
    text = config.get("text_config", {})
    for source in (config, text):
        for key in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx"):
            if isinstance(source.get(key), int):
                return int(source[key])
    return DEFAULT_CONTEXT
