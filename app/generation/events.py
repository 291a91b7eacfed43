"""What a running job tells: the union that ``api.render`` turns into chunks or into a whole answer.

Order: one :class:`Started`, one :class:`Cached`, then :class:`Delta` and :class:`Finished` per choice in any
interleaving, then one :class:`Completed`. A failure is an exception out of the iterator, never an event.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from app.schemas.usage import Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class Alternative(Struct, frozen=True):
    """A token that could have stood here: its text, its bytes, its natural-log probability."""

    text: str
    bytes: bytes
    logprob: float


class TokenLogprob(Struct, frozen=True):
    """A token of the output (or of an echoed prompt) with its log probability and the alternatives, best first.

    ``shown`` says whether its bytes are part of the choice's text; those of special tokens are not.
    """

    text: str
    bytes: bytes
    logprob: float | None
    top: tuple[Alternative, ...] = ()
    shown: bool = True


class Timings(Struct, frozen=True):
    """Where a job's time went, in seconds: its turn, a load, prompts up to their first tokens, all other tokens."""

    queue: float = 0.0
    load: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0


class Started(Struct, frozen=True):
    """The model is leased and the prompts are tokens: nothing that is the request's fault can fail after this.

    Of ``timings``, ``queue`` and ``load`` are known. Calls of the functions ``unenforced`` follow no schema, because
    it cannot be made into a grammar.
    """

    model: str
    fingerprint: str
    prompt_tokens: int
    timings: Timings = Timings()
    unenforced: tuple[str, ...] = ()


class Cached(Struct, frozen=True):
    """So many of the prompts' tokens were in the KV cache; said once, where possible before the rest is computed."""

    tokens: int


class Delta(Struct, frozen=True):
    """More of choice ``index``: thoughts, then text.

    ``logprobs`` belong to the tokens whose text this delta completes; thoughts and calls have none.
    """

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    reasoning: str = ""


class ToolCallStarted(Struct, frozen=True):
    """Choice ``index`` calls function ``name``; ``call`` counts the calls of the choice from 0."""

    index: int
    call: int
    id: str
    name: str


class ToolCallArguments(Struct, frozen=True):
    """More of a call's arguments, which together are JSON text."""

    index: int
    call: int
    text: str


class Finished(Struct, frozen=True):
    """Choice ``index`` has ended. ``mean_logprob`` is 0 where no log probabilities were computed.

    ``stop`` is the stop string that ended it.
    """

    index: int
    reason: FinishReason
    mean_logprob: float = 0.0
    stop: str | None = None


class Completed(Struct, frozen=True):
    """Every choice has ended."""

    usage: Usage
    timings: Timings = Timings()


Event = Started | Cached | Delta | ToolCallStarted | ToolCallArguments | Finished | Completed

Events = Sequence[Event]
"""What is told at the same time; at least one."""
