"""Token ids to text, one at a time."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

CONTEXT = 8
"""Tokens of the prompt that are decoded along, so that the first space of the continuation is kept."""
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class StreamDetokenizer:
    """For tokenizers of the ``tokenizers`` library, which knows how to decode a stream. ``dropped`` are not text."""

    def __init__(self, tokenizer: Tokenizer, prompt: tuple[int, ...], dropped: frozenset[int]) -> None:
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

    def __init__(self, decode: Callable[[list[int]], str], prompt: tuple[int, ...]) -> None:
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
