"""One resident MLX model, seen from the event loop."""

from __future__ import annotations

from functools import partial
from typing import Any

from app.engine.base import Sequence
from app.engine.grammar import Grammar
from app.engine.mlx.batch.batch import ModelBatch
from app.engine.mlx.batch.stream import MLXTokenStream
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.guide.compiler import GrammarCompiler
from app.engine.mlx.guide.guide import Guide
from app.engine.mlx.loaded import Loaded
from app.engine.mlx.memory import release
from app.engine.mlx.rows import Waiting
from app.engine.mlx.speculate.draft import Draft
from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.engine.work import Work
from app.errors import SwitchyardError, Unavailable


class MLXEngine:
    """Implements :class:`app.engine.base.Engine`. Its methods are called on the event loop."""

    def __init__(
        self,
        thread: MLXThread,
        batch: ModelBatch,
        tokenizer: MLXTokenizer,
        grammars: GrammarCompiler,
        *,
        loaded: Loaded,
        context_length: int,
        fingerprint: str,
        draft: Draft | None = None,
    ) -> None:
        self._thread = thread
        self._batch: ModelBatch | None = batch
        self._grammars = grammars
        self._loaded: Loaded | None = loaded
        self.tokenizer = tokenizer
        self.context_length = context_length
        held = (loaded,) if draft is None else (loaded, draft.loaded)
        self.nbytes = sum(it.nbytes for it in held)
        self.kv_bytes_per_token = sum(it.kv_bytes_per_token for it in held)
        self.fingerprint = fingerprint

    async def prepare(self, grammar: Grammar) -> None:
        """Compile it on a thread of its own."""
        await self._grammars.prepare(grammar)

    def generate(self, sequences: tuple[Sequence, ...]) -> MLXTokenStream:
        """Queue sequences for the running batch."""
        stream = MLXTokenStream()
        batch = self._batch
        if batch is None:
            stream.fail(Unavailable("The model was unloaded; send the request again.", retry_after=1))
            return stream
        waiting = [Waiting(stream, i, sequence) for i, sequence in enumerate(sequences)]
        self._thread.post(lambda: self._submit(batch, stream, waiting))
        return stream

    def _submit(self, batch: ModelBatch, stream: MLXTokenStream, waiting: list[Waiting]) -> None:
        """Give guided rows their guides, then queue all. MLX thread."""
        try:
            for it in waiting:
                if it.request.grammar is not None or it.request.thoughts is not None:
                    for row in it.rows:
                        row.guide = Guide(it.request, self._grammars, self.tokenizer.token_bytes)
        except SwitchyardError as failure:
            self._thread.notify(partial(stream.fail, failure))
            return
        batch.submit(waiting)

    def work(self) -> Work:
        """Read from the batch beside its thread: plain numbers that may be a step old."""
        return Work(0, 0) if self._batch is None else self._batch.work()

    @property
    def loaded(self) -> Loaded:
        """The model's weights, for others to share; raises :class:`app.errors.Unavailable` once it is closed."""
        if self._loaded is None:
            raise Unavailable("The model was unloaded; send the request again.", retry_after=1)
        return self._loaded

    async def close(self) -> None:
        """Fail what still runs and return once weights and caches are back with the system."""
        batch, self._batch, self._loaded = self._batch, None, None
        if batch is not None:
            self._grammars.close()
            held: list[Any] = [batch]
            del batch
            await self._thread.call(lambda: _free(self._thread, held))


def _free(thread: MLXThread, held: list[Any]) -> None:
    batch = held.pop()
    batch.fail(Unavailable("The model was unloaded; send the request again.", retry_after=1))
    thread.remove(batch)
    del batch
    release()
