"""The fold over a job's events that every whole answer is made from. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self, TypeVar, assert_never

from msgspec import UNSET, Struct, UnsetType

from app.errors import EngineFailed
from app.generation.events import (
    Cached,
    Completed,
    Delta,
    Event,
    Finished,
    FinishReason,
    Started,
    TokenLogprob,
    ToolCallArguments,
    ToolCallStarted,
)
from app.generation.meter import Meter
from app.schemas.common import StreamOptions
from app.schemas.usage import Usage

T = TypeVar("T")


class Head(Struct, frozen=True):
    """What every chunk of an answer repeats. ``id`` has no dialect's prefix; ``created`` is seconds since 1970."""

    id: str
    created: int
    model: str
    fingerprint: str


class Counts:
    """What a stream's chunks say of tokens: nothing, null until the last one, or the counts so far in each."""

    def __init__(self, options: StreamOptions | None, meter: Meter) -> None:
        self.asked = options is not None and options.include_usage is True
        self._running = self.asked and options is not None and options.continuous_usage_stats is True
        self._meter = meter
        self._prompt = 0

    def began(self, event: Started) -> None:
        """The prompts are known."""
        self._prompt = event.prompt_tokens

    def now(self) -> Usage | UnsetType | None:
        """For a chunk that is not the last."""
        if not self._running:
            return None if self.asked else UNSET
        made = self._meter.completion_tokens
        return Usage(prompt_tokens=self._prompt, completion_tokens=made, total_tokens=self._prompt + made)


@dataclass
class Call:
    """One tool call so far; the pieces of its arguments make JSON text."""

    id: str
    name: str
    pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        """All of its arguments."""
        return "".join(self.pieces)


@dataclass
class Said:
    """Text of the answer, or of a thought, up to where the other or a call begins."""

    thought: bool
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)


@dataclass
class Choice:
    """One choice so far, its ``parts`` in their order; ``reason`` is None while it grows."""

    parts: list[Said | Call] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: FinishReason | None = None
    stop: str | None = None

    @property
    def text(self) -> str:
        """All of its text."""
        return "".join(part.text for part in self.parts if isinstance(part, Said) and not part.thought)

    @property
    def reasoning(self) -> str:
        """All of its thoughts."""
        return "".join(part.text for part in self.parts if isinstance(part, Said) and part.thought)

    @property
    def calls(self) -> list[Call]:
        """All of its calls."""
        return [part for part in self.parts if isinstance(part, Call)]

    def say(self, text: str, *, thought: bool) -> None:
        """More text, or more of a thought."""
        if not text:
            return
        last = self.parts[-1] if self.parts else None
        if not isinstance(last, Said) or last.thought is not thought:
            last = Said(thought)
            self.parts.append(last)
        last.pieces.append(text)


class Transcript:
    """What has been told so far: ``events`` one by one, and what they make of each choice."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._choices: dict[int, Choice] = {}
        self._usage: Usage | None = None

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """The fold of ``events``."""
        transcript = cls()
        for event in events:
            transcript.add(event)
        return transcript

    def add(self, event: Event) -> None:
        """Take in one more event."""
        self.events.append(event)
        match event:
            case Started() | Cached():
                pass
            case Delta(index=index, text=text, logprobs=logprobs, reasoning=thought):
                choice = self._choices.setdefault(index, Choice())
                choice.say(thought, thought=True)
                choice.say(text, thought=False)
                choice.logprobs.extend(logprobs)
            case ToolCallStarted(index=index, id=call_id, name=name):
                self._choices.setdefault(index, Choice()).parts.append(Call(call_id, name))
            case ToolCallArguments(index=index, call=call, text=text):
                self._choices[index].calls[call].pieces.append(text)
            case Finished(index=index, reason=reason, stop=stop):
                choice = self._choices.setdefault(index, Choice())
                choice.reason, choice.stop = reason, stop
            case Completed(usage=usage):
                self._usage = usage
            case _:
                assert_never(event)

    @property
    def usage(self) -> Usage:
        """What it took."""
        return _known(self._usage)

    @property
    def choices(self) -> list[tuple[int, Choice, FinishReason]]:
        """Every choice with its index and why it ended, in the order of the indexes."""
        return [(index, choice, _known(choice.reason)) for index, choice in sorted(self._choices.items())]


def _known(value: T | None) -> T:
    if value is None:
        raise EngineFailed("The answer ended early; send the request again.")
    return value
