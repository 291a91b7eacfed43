"""Events as legacy completions: chunks, and the whole answer. Pure, but for the meter that is read."""

from collections import defaultdict
from typing import Literal, assert_never

from msgspec import Struct

from app.api.write.logprobs import LegacyLogprobs
from app.api.write.transcript import Counts, Head, Transcript
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
from app.schemas.completions import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest
from app.schemas.usage import Usage


class CompletionRenderer:
    """One request's answer."""

    def __init__(self, request: CompletionRequest, meter: Meter, head: Head) -> None:
        self._head = head
        self._id = f"cmpl-{head.id}"
        self._logprobs = request.logprobs is not None
        self._counts = Counts(request.stream_options, meter)
        self._offsets: defaultdict[int, LegacyLogprobs] = defaultdict(LegacyLogprobs)

    def chunks(self, event: Event) -> list[Struct]:
        """The chunks that ``event`` makes."""
        match event:
            case Started():
                self._counts.began(event)
                return []
            case Cached() | ToolCallStarted() | ToolCallArguments():
                return []  # raw text holds no calls
            case Delta(index=index, text=text, logprobs=logprobs):
                return [self._chunk(CompletionChoice(index, text, self._arrays(index, logprobs)))]
            case Finished(index=index, reason=reason):
                return [self._chunk(CompletionChoice(index, "", None, _reason(reason)))]
            case Completed(usage=usage):
                return [self._body([], usage)] if self._counts.asked else []
            case _:
                assert_never(event)

    def whole(self, transcript: Transcript) -> Struct:
        """The answer in one piece."""
        choices = [
            CompletionChoice(index, choice.text, self._arrays(index, tuple(choice.logprobs)), _reason(reason))
            for index, choice, reason in transcript.choices
        ]
        return self._body(choices, transcript.usage)

    def _chunk(self, choice: CompletionChoice) -> Completion:
        return self._body([choice], None)

    def _body(self, choices: list[CompletionChoice], usage: Usage | None) -> Completion:
        return Completion(
            id=self._id,
            created=self._head.created,
            model=self._head.model,
            system_fingerprint=self._head.fingerprint,
            choices=choices,
            usage=self._counts.now() if usage is None else usage,
        )

    def _arrays(self, index: int, logprobs: tuple[TokenLogprob, ...]) -> CompletionLogprobs | None:
        return self._offsets[index].render(logprobs) if self._logprobs else None


def _reason(reason: FinishReason) -> Literal["stop", "length", "content_filter"]:
    return "stop" if reason == "tool_calls" else reason  # raw text holds no calls
