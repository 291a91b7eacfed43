"""Tokens with their text and their bytes, as they leave the engine."""

from __future__ import annotations

from msgspec.structs import replace

from app.engine.base import Prefilled, Sequence, Token, TopLogprob
from app.engine.mlx.text.tokenizer import MLXTokenizer


class SequenceSpelling:
    """What one sequence's tokens say. Event loop only."""

    def __init__(self, tokenizer: MLXTokenizer, request: Sequence) -> None:
        self._tokenizer = tokenizer
        self._request = request

    def row(self) -> RowSpelling:
        """Of one row, from its first token on."""
        return RowSpelling(self._tokenizer, self._request)

    def scored(self, event: Prefilled) -> Prefilled:
        """The prompt's scores with the bytes of its tokens."""
        if not event.scores:
            return event
        of = self._tokenizer
        scores = tuple(
            replace(score, top=_spelt(of, score.top), raw=of.token_bytes(token), shown=of.is_text(token))
            for token, score in zip(self._request.prompt, event.scores, strict=True)
        )
        return replace(event, scores=scores)


class RowSpelling:
    """Follows one row. Event loop only."""

    def __init__(self, tokenizer: MLXTokenizer, request: Sequence) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = tokenizer.detokenizer(request.prompt, keep=request.keep)

    def spelt(self, token: Token) -> Token:
        """``token`` with what it says; the row's last brings what was held back."""
        text = "" if token.finish == "stop" else self._detokenizer.push(token.id)
        if token.finish is not None:
            text += self._detokenizer.finish()
        if token.logprob is None:
            return Token(token.sequence, token.row, token.id, None, (), token.finish, text)
        of = self._tokenizer
        shown = token.finish != "stop" and of.is_text(token.id)
        return replace(token, top=_spelt(of, token.top), text=text, raw=of.token_bytes(token.id), shown=shown)


def _spelt(tokenizer: MLXTokenizer, top: tuple[TopLogprob, ...]) -> tuple[TopLogprob, ...]:
    return tuple(TopLogprob(it.id, it.logprob, tokenizer.token_bytes(it.id)) for it in top)
