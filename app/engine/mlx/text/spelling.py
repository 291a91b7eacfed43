"""Tokens with their text and their bytes, as they leave the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from app.engine.base import Prefilled, Sequence, Token, TopLogprob
from app.engine.ids import Ids

if TYPE_CHECKING:
    from app.engine.mlx.text.tokenizer import MLXTokenizer

CONTEXT = 8
"""Tokens of the prompt that are decoded along, so that the first space of the continuation is kept."""
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class StreamDetokenizer:
    """For tokenizers of the ``tokenizers`` library, which knows how to decode a stream. ``dropped`` are not text."""

    def __init__(self, tokenizer: Tokenizer, prompt: Ids, dropped: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._dropped = dropped
        context = [token for token in prompt[-CONTEXT:] if token not in dropped]
        self._stream = DecodeStream(ids=context, skip_special_tokens=False)
        self._held: list[int] = []

    def push(self, token_id: int) -> str:
        """The text that became certain with this token."""
        if token_id in self._dropped:
            return ""
        text: str | None = self._stream.step(self._tokenizer, token_id)
        if text is None:
            self._held.append(token_id)
            return ""
        self._held.clear()
        return text

    def finish(self) -> str:
        """The unfinished character, as U+FFFD."""
        held, self._held = self._held, []
        text: str = self._tokenizer.decode(held, skip_special_tokens=False)
        return text


class WindowDetokenizer:
    """For any other tokenizer: decodes a short window twice and reports the difference."""

    def __init__(self, decode: Callable[[list[int]], str], prompt: Ids) -> None:
        self._decode = decode
        self._window = list(prompt[-CONTEXT:])
        self._known = len(self._window)

    def push(self, token_id: int) -> str:
        """The text that became certain with this token."""
        self._window.append(token_id)
        text = self._decode(self._window)
        if text.endswith(INCOMPLETE):
            return ""
        return self._advance(text)

    def finish(self) -> str:
        """The unfinished character, as U+FFFD."""
        return self._advance(self._decode(self._window)) if self._known < len(self._window) else ""

    def _advance(self, text: str) -> str:
        new = text[len(self._decode(self._window[: self._known])) :]
        self._window = (
            self._window[max(0, self._known - CONTEXT) :] if len(self._window) > 2 * CONTEXT else self._window
        )
        self._known = len(self._window)
        return new


class SequenceSpelling:
    """What one sequence's tokens say. Event loop only."""

    def __init__(self, tokenizer: MLXTokenizer, request: Sequence) -> None:
        self._tokenizer = tokenizer
        self._request = request

    def row(self) -> RowSpelling:
        """Of one row, from its first token on."""
        return RowSpelling(self._tokenizer, self._request)

    def text(self, ids: Ids) -> str:
        """What ids say; any thread."""
        return self._tokenizer.decode(ids)

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
