"""One loaded MLX model, seen from its process's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial

import numpy as np
from llguidance import LLMatcher
from msgspec.structs import replace

from app.engine.base import Sequence
from app.engine.facts import Books
from app.engine.grammar import Grammar
from app.engine.ids import Ids
from app.engine.mlx.batch.batch import ModelBatch
from app.engine.mlx.batch.delivery import MLXTokenStream, RowStream
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.guide.compiler import GrammarCompiler
from app.engine.mlx.guide.guide import Guide
from app.engine.mlx.loaded import Loaded
from app.engine.mlx.memory import release
from app.engine.mlx.rows import Waiting
from app.engine.mlx.text.edges import edges_of
from app.engine.mlx.text.sections import SectionEncoder
from app.engine.mlx.text.spelling import SequenceSpelling
from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.engine.text import enough
from app.engine.work import Work
from app.errors import InvalidRequest, SwitchyardError, Unavailable


class MLXEngine:
    """A model, or a model with an adapter. Its methods are called on the event loop.

    ``width`` is how many tokens the model has rows for: no id from there on may reach the device, which checks none.
    """

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
        mark: str = "",
    ) -> None:
        self._thread = thread
        self._batch: ModelBatch | None = batch
        self.grammars = grammars
        self._compiling: set[asyncio.Task[None]] = set()
        self._further: asyncio.Task[None] | None = None
        self.asked = 0
        """How often something was asked of it."""
        self.on_asked: Callable[[], None] | None = None
        """Called before what is asked is taken on."""
        self.loaded = loaded
        self.tokenizer = tokenizer
        self.width = min(loaded.vocabulary, loaded.rows)
        self.facts = replace(tokenizer.facts(self.width), keeps_states=batch.keeps_states)
        self.edges = partial(edges_of, tokenizer)
        self._sections = SectionEncoder(tokenizer)
        self.context_length = context_length
        self.nbytes = batch.ledger.weights
        self.law = batch.ledger.law
        self.fingerprint = fingerprint
        self.mark = mark
        """What its KV caches are called on disk."""

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """Text to ids. Raises :class:`app.errors.InvalidRequest` where the model has no row for one of them."""
        ids = self.tokenizer.encode(text, special_tokens=special_tokens)
        _check(ids, self.width)
        return ids

    def conversation(self, text: str) -> Ids | None:
        """The ids of a rendered conversation; None where they cannot fit into the context by any means.

        Raises as :meth:`encode`.
        """
        ids = self._sections.ids(text, enough(self.context_length))
        if ids is not None:
            _check(ids, self.width)
        return ids

    async def prepare(self, grammar: Grammar) -> None:
        """Compile it on a thread of its own."""
        await self.grammars.prepare(grammar)

    def generate(self, sequences: tuple[Sequence, ...], stream: RowStream) -> None:
        """Queue sequences for the running batch; ``stream`` is told what comes of them."""
        batch = self._batch
        if batch is None:
            stream.fail(_unloaded())
            return
        self.asked += 1
        if self.on_asked is not None:
            self.on_asked()
        try:
            for it in sequences:
                _check_ids(it, self.width)
            waiting = [
                Waiting(stream, i, sequence, SequenceSpelling(self.tokenizer, sequence))
                for i, sequence in enumerate(sequences)
            ]
        except SwitchyardError as failure:
            stream.fail(failure)
            return
        grammars = {it.grammar: self.grammars.known(it.grammar) for it in sequences if it.grammar is not None}
        if None in grammars.values():
            task = asyncio.get_running_loop().create_task(self._compile_and_submit(batch, stream, waiting))
            self._compiling.add(task)
            task.add_done_callback(self._compiling.discard)
        else:
            self._thread.post(lambda: self._submit(batch, stream, waiting, grammars))

    def stream(self, sequences: tuple[Sequence, ...]) -> MLXTokenStream:
        """The same, read in this process."""
        stream = MLXTokenStream()
        self.generate(sequences, stream)
        return stream

    async def _compile_and_submit(self, batch: ModelBatch, stream: RowStream, waiting: list[Waiting]) -> None:
        """What was prepared may have been forgotten since: nothing is compiled where others' steps would wait."""
        wanted = dict.fromkeys(it.request.grammar for it in waiting if it.request.grammar is not None)
        try:
            compiled = {grammar: await self.grammars.prepare(grammar) for grammar in wanted}
        except SwitchyardError as failure:
            stream.fail(failure)
        else:
            self._thread.post(lambda: self._submit(batch, stream, waiting, compiled))

    def _submit(
        self, batch: ModelBatch, stream: RowStream, waiting: list[Waiting], compiled: Mapping[Grammar, LLMatcher | None]
    ) -> None:
        """Give guided rows their guides, then queue all. MLX thread."""
        try:
            for it in waiting:
                if it.request.grammar is not None or it.request.thoughts is not None:
                    grammar = None if it.request.grammar is None else compiled[it.request.grammar]
                    for row in it.rows:
                        row.guide = Guide(it.request, self.grammars, self.tokenizer.token_bytes, grammar)
        except SwitchyardError as failure:
            self._thread.notify(partial(stream.fail, failure))
            return
        batch.submit(waiting)

    def go_further(self, further: Coroutine[None, None, None]) -> None:
        """Run this beside what is asked; it ends with the engine."""
        self._further = asyncio.get_running_loop().create_task(further)

    def go_on(self) -> None:
        """Rows that wait for memory may have been granted some, or have left."""
        batch = self._batch
        if batch is not None and batch.waits:
            self._thread.post(batch.go_on)

    async def put_back(self, stream: RowStream) -> None:
        """Have the rows of a stream wait without their KV caches, and return when these are free."""
        batch = self._batch
        if batch is not None:
            await self._thread.call(lambda: batch.put_back(stream))

    def work(self) -> Work:
        """Read from the batch beside its thread: plain numbers that may be a step old."""
        return Work(0, 0) if self._batch is None else self._batch.work()

    def books(self) -> Books:
        """Read likewise."""
        return Books() if self._batch is None else self._batch.ledger.books()

    async def settle(self) -> None:
        """Return once what is to be kept on disk is written, or cannot be."""
        batch = self._batch
        if batch is not None:
            future = asyncio.get_running_loop().create_future()
            self._thread.post(lambda: batch.arrivals.settle(lambda: self._thread.notify(partial(_set, future))))
            await future

    async def close(self) -> None:
        """Fail what still runs and return once an adapter's own weights and caches are free; its base stays."""
        batch, self._batch = self._batch, None
        if self._further is not None:
            self._further.cancel()
        if batch is not None:
            self.grammars.close()
            await self._thread.call(lambda: _end(self._thread, batch))
            del batch, self.loaded
            await self._thread.call(release)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _end(thread: MLXThread, batch: ModelBatch) -> None:
    batch.fail(_unloaded())
    batch.arrivals.close()
    thread.remove(batch)


def _unloaded() -> Unavailable:
    return Unavailable("The model was unloaded; send the request again.", retry_after=1)


def _check_ids(sequence: Sequence, width: int) -> None:
    """Every id that reaches the device: MLX looks up whatever number it is given."""
    _check(sequence.prompt, width)
    _check([token for token, _ in sequence.sampling.logit_bias], width)
    if sequence.thoughts is not None:
        _check((*sequence.thoughts.start, *sequence.thoughts.end), width)


def _check(ids: Ids, width: int) -> None:
    if not len(ids):
        return
    values = np.asarray(ids)
    if values.min() < 0 or values.max() >= width:
        wrong = next(token for token in ids if not 0 <= token < width)
        raise InvalidRequest(
            f"Token id {wrong} has no row in this model's weights, which have {width}. If it came of a text, the "
            "model's tokenizer and weights do not belong together: name another model.",
            param="model",
            code="token_out_of_range",
        )
