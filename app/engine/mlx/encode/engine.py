"""One loaded model that makes vectors or scores, seen from its process's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import numpy as np

from app.engine import base
from app.engine.facts import Books, Law
from app.engine.grammar import Grammar
from app.engine.kind import Kind, unfit
from app.engine.mlx.batch.delivery import RowStream
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.encode.batch import EncodeBatch, EncodeJob
from app.engine.mlx.encode.encoders import Computer, Piece
from app.engine.mlx.encode.recipe import Recipe
from app.engine.mlx.encode.rerank import Asking
from app.engine.mlx.encode.tokens import EncoderTokenizer
from app.engine.mlx.memory import release
from app.engine.text import Edges
from app.engine.vectors import Embedding, Input, Ranking, Scores, Vectors
from app.engine.work import Work
from app.errors import InvalidRequest, Unavailable

ALIASES = {
    "query": ("query", "search_query", "Retrieval-query"),
    "document": ("document", "passage", "search_document", "Retrieval-document"),
}
"""Names under which checkpoints keep the prompt for a query, or for what is searched."""
LEAST = 1e-12


class MLXEncoder:
    """A model of the kind ``embedding`` or ``rerank``. Its methods are called on the event loop.

    ``width`` is how many tokens the model has rows for: no id from there on may reach the device, which checks none.
    ``recipe`` is an embedder's, ``asking`` a reranker's.
    """

    def __init__(
        self,
        thread: MLXThread,
        computer: Computer,
        tokenizer: EncoderTokenizer,
        *,
        name: str,
        kind: Kind,
        width: int,
        nbytes: int,
        fingerprint: str,
        recipe: Recipe | None = None,
        asking: Asking | None = None,
    ) -> None:
        self._thread = thread
        self._batch: EncodeBatch | None = EncodeBatch(thread, computer)
        self._name = name
        self._recipe = recipe
        self._asking = asking
        self.kind = kind
        self.tokenizer = tokenizer
        self.width = width
        self.facts = tokenizer.facts(width)
        self.context_length = tokenizer.longest
        self.nbytes = nbytes
        self.law = Law()
        self.fingerprint = fingerprint

    def edges(self, head: bytes) -> Edges:  # noqa: ARG002
        """None: such a model holds no conversation."""
        return Edges()

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """Text to ids."""
        return self.tokenizer.encode(text, special_tokens=special_tokens)

    async def embed(self, texts: Sequence[Input], how: Embedding) -> Vectors:
        """A vector for each text. Raises :class:`app.errors.InvalidRequest` for what cannot be done as it is asked."""
        recipe = self._recipe
        if recipe is None:
            raise unfit(self._name, self.kind, "embedding")
        pieces = await asyncio.to_thread(self._pieces, recipe, texts, how)
        rows = np.stack(await self._run(pieces)).astype("<f4")
        if how.dimensions is not None:
            if how.dimensions > rows.shape[1]:
                message = f"dimensions must be {rows.shape[1]} at most: so many numbers have this model's vectors."
                raise InvalidRequest(message, param="dimensions")
            rows = rows[:, : how.dimensions]
            rows = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), LEAST)).astype("<f4")
        return Vectors(rows.tobytes(), int(rows.shape[1]), sum(len(piece.ids) for piece in pieces))

    async def rerank(self, query: str, documents: Sequence[str], how: Ranking) -> Scores:
        """A score for each document. Raises :class:`app.errors.InvalidRequest` as :meth:`embed` does."""
        asking = self._asking
        if asking is None:
            raise unfit(self._name, self.kind, "rerank")
        put = partial(asking.pieces, query, documents, instruction=how.instruction, cut=how.truncate)
        pieces = await asyncio.to_thread(put)
        rows = await self._run(pieces)
        return Scores(tuple(float(row[0]) for row in rows), sum(len(piece.ids) for piece in pieces))

    async def prepare(self, grammar: Grammar) -> None:
        """Refused: there is no answer to hold."""
        del grammar
        raise unfit(self._name, self.kind, "text")

    def generate(self, sequences: tuple[base.Sequence, ...], stream: RowStream) -> None:
        """Refused: such a model generates nothing."""
        del sequences
        stream.fail(unfit(self._name, self.kind, "text"))

    def work(self) -> Work:
        """Texts and tokens that wait."""
        return Work(0, 0) if self._batch is None else self._batch.work()

    def books(self) -> Books:
        """Its weights; what it computes is never kept."""
        return Books() if self._batch is None else Books(weights=self.nbytes)

    async def close(self) -> None:
        """Fail what still runs and return once its memory is free."""
        batch, self._batch = self._batch, None
        if batch is not None:
            await self._thread.call(lambda: batch.fail(_unloaded()))
            del batch
            await self._thread.call(release)

    async def _run(self, pieces: list[Piece]) -> list[np.ndarray]:
        batch = self._batch
        if batch is None:
            raise _unloaded()
        for piece in pieces:
            self._check(piece)
        job = EncodeJob(pieces, asyncio.get_running_loop().create_future())
        self._thread.post(lambda: batch.submit(job))
        return await job.future

    def _pieces(self, recipe: Recipe, texts: Sequence[Input], how: Embedding) -> list[Piece]:
        prompt = self._prompt(recipe, how)
        ids = [it for it in texts if not isinstance(it, str)]
        words = [it for it in texts if isinstance(it, str)]
        if words and ids:
            raise InvalidRequest("input must be texts or lists of token ids, not both.", param="input")
        if ids and how.prompt_name is not None:
            message = "prompt_name stands before texts; token ids are taken as they are."
            raise InvalidRequest(message, param="prompt_name")
        if words:
            return self.tokenizer.texts(words, prompt=prompt, cut=how.truncate, field="input")
        place = "input" if len(ids) == 1 else "input.{}"
        return [self.tokenizer.ids(it, cut=how.truncate, field=place.format(at)) for at, it in enumerate(ids)]

    def _prompt(self, recipe: Recipe, how: Embedding) -> str:
        """What stands before each text."""
        prompts = recipe.prompts
        if how.prompt_name is not None:
            if how.prompt_name not in prompts:
                known = f"it has {', '.join(sorted(prompts))}" if prompts else "it has none"
                raise InvalidRequest(f"This model has no prompt {how.prompt_name!r}: {known}.", param="prompt_name")
            return prompts[how.prompt_name]
        if how.input_type is not None:
            return next((prompts[name] for name in ALIASES[how.input_type] if name in prompts), "")
        return "" if recipe.default_prompt is None else prompts[recipe.default_prompt]

    def _check(self, piece: Piece) -> None:
        if not (min(piece.ids) >= 0 and max(piece.ids) < self.width):
            wrong = next(token for token in piece.ids if not 0 <= token < self.width)
            raise InvalidRequest(
                f"Token id {wrong} has no row in this model's weights, which have {self.width}. Send texts, which are "
                "tokenised here.",
                param="input",
                code="token_out_of_range",
            )


def _unloaded() -> Unavailable:
    return Unavailable("The model was unloaded; send the request again.", retry_after=1)
