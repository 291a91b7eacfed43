"""Events as a response: its stream of numbered events, and the whole response in the end. Pure but for the clock.

There is one machine for both: a whole answer is what the last event of the stream would tell.
"""

from itertools import count
from time import time
from typing import assert_never

from msgspec import Struct, structs

from app.api.read.response_tools import Called
from app.api.write.response_items import (
    Events,
    Growing,
    GrowingCall,
    GrowingCustomCall,
    GrowingMessage,
    GrowingReasoning,
    Seal,
)
from app.api.write.transcript import Head, Transcript
from app.generation.events import (
    Cached,
    Completed,
    Delta,
    Event,
    Finished,
    FinishReason,
    Started,
    ToolCallArguments,
    ToolCallStarted,
)
from app.schemas import response_events as wire
from app.schemas.errors import ErrorDetail
from app.schemas.response_items import OutputItem
from app.schemas.responses import (
    IncompleteDetails,
    ResponseError,
    ResponseInputDetails,
    ResponseObject,
    ResponseOutputDetails,
    ResponseUsage,
)
from app.schemas.usage import Usage
from app.store.ids import Kind, item_id


class Manner(Struct, frozen=True):
    """How the output of a response is told. ``called`` gives the names that calls were sent with."""

    called: dict[str, Called]
    logprobs: bool
    summed_up: bool
    seal: Seal | None


class ResponseRenderer:
    """One response. ``response`` is as it was when it was taken, and is whole once all events have been seen."""

    def __init__(self, response: ResponseObject, manner: Manner) -> None:
        self.response = response
        self._manner = manner
        self._numbers = count()
        self._output: list[OutputItem] = []
        self._growing: Growing | None = None
        self._reason: FinishReason = "stop"

    def begin(self, head: Head) -> "ResponseRenderer":
        """Who answers is known."""
        self.response = structs.replace(self.response, model=head.model)
        return self

    def opening(self) -> list[Struct]:
        """The events that the stream begins with."""
        return self._numbered([wire.CreatedEvent(response=self.response), wire.InProgressEvent(response=self.response)])

    def silence(self) -> list[Struct]:
        """What fills a silence: clients take comments for nothing at all."""
        return self._numbered([wire.InProgressEvent(response=self._now())])

    def failure(self, error: ErrorDetail) -> Struct:
        """The last event of a response that fails."""
        failed = ResponseError(error.code or error.type, error.message, error.param)
        self.response = structs.replace(self._now(), status="failed", error=failed)
        return self._numbered([wire.FailedEvent(response=self.response)])[0]

    def chunks(self, event: Event) -> list[Struct]:
        """The events that ``event`` makes."""
        return self._numbered(self._rendered(event))

    def whole(self, transcript: Transcript) -> ResponseObject:
        """The response in one piece."""
        for event in transcript.events:
            self._rendered(event)
        return self.response

    def _rendered(self, event: Event) -> Events:
        match event:
            case Started() | Cached():
                return []
            case Delta():
                return self._delta(event)
            case ToolCallStarted():
                return self._grow(self._call(event))
            case ToolCallArguments(text=text):
                return self._growing.more(text) if isinstance(self._growing, GrowingCall | GrowingCustomCall) else []
            case Finished(reason=reason):
                self._reason = reason
                events = [] if self._index or self._growing else self._grow(self._message())
                return [*events, *self._end(cut=reason == "length")]
            case Completed(usage=usage):
                return [self._complete(usage)]
            case _:
                assert_never(event)

    def _delta(self, delta: Delta) -> Events:
        events: Events = []
        if delta.reasoning:
            growing = self._growing
            if not isinstance(growing, GrowingReasoning):
                growing = GrowingReasoning(
                    self._id("rs"), self._next, summed_up=self._manner.summed_up, seal=self._manner.seal
                )
                events += self._grow(growing)
            events += growing.more(delta.reasoning)
        logprobs = delta.logprobs if self._manner.logprobs else ()
        message = self._growing
        if delta.text and not isinstance(message, GrowingMessage):
            message = self._message()
            events += self._grow(message)
        if isinstance(message, GrowingMessage) and (delta.text or logprobs):
            events += message.more(delta.text, logprobs)
        return events

    def _complete(self, usage: Usage) -> wire.ResponseEvent:
        details = None
        if self._reason == "length":
            details = IncompleteDetails("max_output_tokens")
        elif self._reason == "content_filter":
            details = IncompleteDetails("content_filter")
        self.response = structs.replace(
            self.response,
            status="completed" if details is None else "incomplete",
            completed_at=int(time()) if details is None else None,
            incomplete_details=details,
            output=self._output,
            usage=_usage(usage),
        )
        if details is None:
            return wire.CompletedEvent(response=self.response)
        return wire.IncompleteEvent(response=self.response)

    @property
    def _index(self) -> int:
        """The number of items that are whole, and so the place of the one that grows."""
        return len(self._output)

    @property
    def _next(self) -> int:
        """The place of the item that begins next."""
        return self._index + (self._growing is not None)

    def _id(self, kind: Kind) -> str:
        return item_id(kind, self.response.id, self._next)

    def _message(self) -> GrowingMessage:
        return GrowingMessage(self._id("msg"), self._next)

    def _call(self, event: ToolCallStarted) -> Growing:
        called = self._manner.called.get(event.name, Called(event.name))
        if called.custom:
            return GrowingCustomCall(self._id("ctc"), self._next, event.id, called)
        return GrowingCall(self._id("fc"), self._next, event.id, called)

    def _grow(self, growing: Growing) -> Events:
        """Begin an item; the one before it is whole."""
        events = self._end(cut=False)
        self._growing = growing
        return [*events, *growing.begin()]

    def _end(self, *, cut: bool) -> Events:
        growing, self._growing = self._growing, None
        if growing is None:
            return []
        events, item = growing.end(), growing.item("incomplete" if cut else "completed")
        events.append(wire.ItemDoneEvent(output_index=self._index, item=item))
        self._output.append(item)
        return events

    def _now(self) -> ResponseObject:
        """The response with all that was told of it."""
        growing = [] if self._growing is None else [self._growing.item("in_progress")]
        return structs.replace(self.response, output=[*self._output, *growing])

    def _numbered(self, events: Events) -> list[Struct]:
        numbered: list[Struct] = []
        for event in events:
            event.sequence_number = next(self._numbers)
            numbered.append(event)
        return numbered


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=ResponseInputDetails(usage.prompt_tokens_details.cached_tokens),
        output_tokens=usage.completion_tokens,
        output_tokens_details=ResponseOutputDetails(usage.completion_tokens_details.reasoning_tokens),
        total_tokens=usage.total_tokens,
    )
