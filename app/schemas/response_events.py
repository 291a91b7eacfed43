"""Events of a streamed response, each named by its tag.

Source of the shapes: OpenAI's Responses reference (``ResponseStreamEvent``). ``sequence_number`` counts the events of a
stream from 0; who sends them numbers them.
"""

from msgspec import Struct

from app.schemas.response_items import OutputItem, OutputText, ReasoningText, SummaryText, TextLogprob
from app.schemas.responses import ResponseObject


class ResponseEvent(Struct, tag_field="type", kw_only=True):
    """What every event has."""

    sequence_number: int = -1


class StateEvent(ResponseEvent, kw_only=True):
    """The response as it stands."""

    response: ResponseObject


class CreatedEvent(StateEvent, tag="response.created"):
    """It is taken."""


class InProgressEvent(StateEvent, tag="response.in_progress"):
    """It is being made; told again in silences."""


class CompletedEvent(StateEvent, tag="response.completed"):
    """It is whole; the last event."""


class IncompleteEvent(StateEvent, tag="response.incomplete"):
    """It ended early; the last event."""


class FailedEvent(StateEvent, tag="response.failed"):
    """It failed; the last event."""


class ItemEvent(ResponseEvent, kw_only=True):
    """About a whole item."""

    output_index: int
    item: OutputItem


class ItemAddedEvent(ItemEvent, tag="response.output_item.added"):
    """An item begins."""


class ItemDoneEvent(ItemEvent, tag="response.output_item.done"):
    """An item is whole."""


class InItem(ResponseEvent, kw_only=True):
    """About something in an item."""

    item_id: str
    output_index: int


class PartEvent(InItem, kw_only=True):
    """About a part of an item's content."""

    content_index: int = 0
    part: OutputText | ReasoningText


class PartAddedEvent(PartEvent, tag="response.content_part.added"):
    """A part begins."""


class PartDoneEvent(PartEvent, tag="response.content_part.done"):
    """A part is whole."""


class TextDeltaEvent(InItem, tag="response.output_text.delta", kw_only=True):
    """More of a text."""

    content_index: int = 0
    delta: str
    logprobs: list[TextLogprob] = []


class TextDoneEvent(InItem, tag="response.output_text.done", kw_only=True):
    """All of a text."""

    content_index: int = 0
    text: str
    logprobs: list[TextLogprob] = []


class ReasoningDeltaEvent(InItem, tag="response.reasoning_text.delta", kw_only=True):
    """More of a thought."""

    content_index: int = 0
    delta: str


class ReasoningDoneEvent(InItem, tag="response.reasoning_text.done", kw_only=True):
    """All of a thought."""

    content_index: int = 0
    text: str


class SummaryPartEvent(InItem, kw_only=True):
    """About a part of a summary."""

    summary_index: int = 0
    part: SummaryText


class SummaryPartAddedEvent(SummaryPartEvent, tag="response.reasoning_summary_part.added"):
    """A part of a summary begins."""


class SummaryPartDoneEvent(SummaryPartEvent, tag="response.reasoning_summary_part.done"):
    """A part of a summary is whole."""


class SummaryDeltaEvent(InItem, tag="response.reasoning_summary_text.delta", kw_only=True):
    """More of a summary."""

    summary_index: int = 0
    delta: str


class SummaryDoneEvent(InItem, tag="response.reasoning_summary_text.done", kw_only=True):
    """All of a summary."""

    summary_index: int = 0
    text: str


class ArgumentsDeltaEvent(InItem, tag="response.function_call_arguments.delta", kw_only=True):
    """More of a call's arguments."""

    delta: str


class ArgumentsDoneEvent(InItem, tag="response.function_call_arguments.done", kw_only=True):
    """All of a call's arguments."""

    name: str
    arguments: str


class CustomInputDeltaEvent(InItem, tag="response.custom_tool_call_input.delta", kw_only=True):
    """More of a custom tool's input."""

    delta: str


class CustomInputDoneEvent(InItem, tag="response.custom_tool_call_input.done", kw_only=True):
    """All of a custom tool's input."""

    input: str


ResponseStreamEvent = (
    CreatedEvent
    | InProgressEvent
    | CompletedEvent
    | IncompleteEvent
    | FailedEvent
    | ItemAddedEvent
    | ItemDoneEvent
    | PartAddedEvent
    | PartDoneEvent
    | TextDeltaEvent
    | TextDoneEvent
    | ReasoningDeltaEvent
    | ReasoningDoneEvent
    | SummaryPartAddedEvent
    | SummaryPartDoneEvent
    | SummaryDeltaEvent
    | SummaryDoneEvent
    | ArgumentsDeltaEvent
    | ArgumentsDoneEvent
    | CustomInputDeltaEvent
    | CustomInputDoneEvent
)
