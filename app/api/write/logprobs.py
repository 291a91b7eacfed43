"""Log probabilities as OpenAI spells them. Pure."""

import codecs

from app.generation.events import Alternative, TokenLogprob
from app.schemas.chat import ChatLogprobs, ChatTokenLogprob, ChatTopLogprob
from app.schemas.completions import CompletionLogprobs

LOWEST = -9999.0
"""Stands for minus infinity, which JSON does not have; OpenAI's own convention."""


def chat_logprobs(tokens: tuple[TokenLogprob, ...]) -> ChatLogprobs:
    """The chat shape: a list of tokens, each with its alternatives."""
    return ChatLogprobs(
        content=[
            ChatTokenLogprob(
                token=label(token),
                bytes=_bytes(token),
                logprob=score(token),
                top_logprobs=[
                    ChatTopLogprob(token=label(it), bytes=_bytes(it), logprob=_finite(it.logprob)) for it in token.top
                ],
            )
            for token in tokens
        ]
    )


class LegacyLogprobs:
    """The four-array shape, piece by piece: offsets go on where the last piece ended.

    ``top_logprobs`` holds the alternatives and the token itself, so one entry more where it is not among them.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def render(self, tokens: tuple[TokenLogprob, ...]) -> CompletionLogprobs:
        """The arrays of the next tokens of the choice."""
        return CompletionLogprobs(
            tokens=[label(token, "bytes:") for token in tokens],
            token_logprobs=[None if token.logprob is None else _finite(token.logprob) for token in tokens],
            top_logprobs=[_top(token) for token in tokens],
            text_offset=[self._place(token) for token in tokens],
        )

    def _place(self, token: TokenLogprob) -> int:
        """The number of characters before the one that the token begins or goes on with."""
        before = self._offset
        if not token.shown:
            return before
        pending = self._decoder.getstate()[0]
        text = self._decoder.decode(token.bytes)
        self._offset += len(text)
        broken = pending and text.startswith("\N{REPLACEMENT CHARACTER}")
        if broken and not (pending + token.bytes).startswith("\N{REPLACEMENT CHARACTER}".encode()):
            return before + 1  # a character that was never finished stands there first
        return before


def label(token: TokenLogprob | Alternative, prefix: str = "") -> str:
    r"""The token's text; a part of a character is spelt ``\xe2\x82``, after ``prefix``."""
    try:
        token.bytes.decode()
    except UnicodeDecodeError:
        return prefix + "".join(f"\\x{byte:02x}" for byte in token.bytes)
    return token.text


def score(token: TokenLogprob | Alternative) -> float:
    """The token's log probability as JSON can say it."""
    return _finite(LOWEST if token.logprob is None else token.logprob)


def _top(token: TokenLogprob) -> dict[str, float] | None:
    if token.logprob is None:
        return None
    top: dict[str, float] = {}
    for it in token.top:
        top.setdefault(label(it, "bytes:"), _finite(it.logprob))
    top.setdefault(label(token, "bytes:"), _finite(token.logprob))
    return top


def _bytes(token: TokenLogprob | Alternative) -> list[int] | None:
    return list(token.bytes) if token.bytes else None


def _finite(logprob: float) -> float:
    return max(LOWEST, logprob)  # in this order NaN becomes LOWEST too
