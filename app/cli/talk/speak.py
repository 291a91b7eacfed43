"""Asking a model and printing what it says as it comes; for ``chat`` and ``complete``."""

import sys
from collections.abc import Iterator
from time import perf_counter
from typing import Any

from msgspec import Struct

from app.cli.client import Client


class Delta(Struct):
    """More of a message."""

    content: str | None = None
    reasoning_content: str | None = None


class Choice(Struct):
    """A piece of an answer: ``delta`` in a chat, ``text`` in a completion."""

    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class Usage(Struct):
    """Tokens, counted by the service."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Chunk(Struct):
    """One event of an answer's stream."""

    choices: list[Choice] = []
    usage: Usage | None = None


class Spoken(Struct):
    """A whole answer and how it came."""

    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token_seconds: float | None = None
    seconds: float = 0.0

    def figures(self) -> str:
        """One line of numbers."""
        rate = ""
        decoding = self.seconds - (self.first_token_seconds or 0.0)
        if self.completion_tokens > 1 and decoding > 0:
            rate = f", {(self.completion_tokens - 1) / decoding:.1f} tokens/s"
        first = f", first after {self.first_token_seconds:.2f} s" if self.first_token_seconds is not None else ""
        return f"{self.prompt_tokens} + {self.completion_tokens} tokens{first}{rate}"


def speak(client: Client, path: str, body: dict[str, Any], *, quiet: bool) -> Spoken:
    """Send ``body`` and print the answer as it comes; thoughts go to standard error. Ctrl-C ends it and keeps it."""
    spoken, began = Spoken(), perf_counter()
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    try:
        for content, thoughts in _pieces(client.stream("POST", path, Chunk, asked), spoken):
            if spoken.first_token_seconds is None and (content or thoughts):
                spoken.first_token_seconds = perf_counter() - began
            spoken.text += content
            if not quiet:
                sys.stderr.write(thoughts)
                sys.stdout.write(content)
                sys.stdout.flush()
    except KeyboardInterrupt:
        spoken.finish_reason = "interrupted"
    spoken.seconds = perf_counter() - began
    return spoken


def sampling(**given: float | None) -> dict[str, float]:
    """The options that were given."""
    return {name: value for name, value in given.items() if value is not None}


def _pieces(chunks: Iterator[Chunk], spoken: Spoken) -> Iterator[tuple[str, str]]:
    for chunk in chunks:
        if chunk.usage is not None:
            spoken.prompt_tokens, spoken.completion_tokens = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
        for choice in chunk.choices:
            spoken.finish_reason = choice.finish_reason or spoken.finish_reason
            delta = choice.delta or Delta(content=choice.text)
            yield delta.content or "", delta.reasoning_content or ""
