"""How a query and a document are put to a reranker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from app.engine.mlx.encode.encoders import Piece
from app.engine.mlx.encode.tokens import EncoderTokenizer

BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
"""Qwen3-Reranker's prompt and the instruction it is given where there is none, as its model card has them."""


class Asking(Protocol):
    """Makes pieces of a query and documents; raises :class:`app.errors.InvalidRequest` for what is too long."""

    def pieces(self, query: str, documents: Sequence[str], *, instruction: str | None, cut: bool) -> list[Piece]:
        """One for each document."""


class Pairs:
    """Both texts in one row, as cross-encoders take them; an instruction means nothing to them."""

    def __init__(self, tokenizer: EncoderTokenizer) -> None:
        self._tokenizer = tokenizer

    def pieces(self, query: str, documents: Sequence[str], *, instruction: str | None, cut: bool) -> list[Piece]:
        """See :class:`Asking`."""
        del instruction
        return self._tokenizer.pairs(query, documents, cut=cut)


class Judging:
    """Qwen3-Reranker's own prompt, which ends where the model says yes or no."""

    def __init__(self, tokenizer: EncoderTokenizer) -> None:
        self._tokenizer = tokenizer

    def pieces(self, query: str, documents: Sequence[str], *, instruction: str | None, cut: bool) -> list[Piece]:
        """See :class:`Asking`."""
        task = INSTRUCTION if instruction is None else instruction
        asked = f"<Instruct>: {task}\n<Query>: {query}\n<Document>: "
        return self._tokenizer.between(BEFORE, asked, documents, AFTER, cut=cut)
