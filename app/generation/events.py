"""What a running job tells: the union that ``api.render`` turns into chunks or into a whole answer.

Order: one :class:`Started`, then :class:`Delta` and :class:`Finished` per choice in any interleaving, then one
:class:`Completed`. A failure is an exception out of the iterator, never an event.
"""

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
    """A token of the output (or of an echoed prompt) with its log probability and the alternatives, best first."""

    text: str
    bytes: bytes
    logprob: float | None
    top: tuple[Alternative, ...] = ()


class Started(Struct, frozen=True):
    """The model is leased and the prompts are tokens: nothing that is the request's fault can fail after this."""

    model: str
    fingerprint: str
    prompt_tokens: int


class Delta(Struct, frozen=True):
    """More text of choice ``index``. ``logprobs`` belong to the tokens whose text this delta completes."""

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class Finished(Struct, frozen=True):
    """Choice ``index`` has ended. ``mean_logprob`` is 0 where no log probabilities were computed."""

    index: int
    reason: FinishReason
    mean_logprob: float = 0.0


class Completed(Struct, frozen=True):
    """Every choice has ended."""

    usage: Usage


Event = Started | Delta | Finished | Completed
