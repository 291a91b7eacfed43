"""Items of the Responses API: what a conversation is made of, as it comes in and as it is answered.

Source of the shapes: OpenAI's Responses reference (``ResponseInputItemParam``, ``ResponseOutputItem``). What comes in
is read leniently: ids, statuses and fields that say nothing to a model may be missing or be anything.
"""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class InputText(Struct, tag="input_text", tag_field="type"):
    """Text that was said to the model."""

    text: str


class PlainText(Struct, tag="text", tag_field="type"):
    """Text, as some clients spell it."""

    text: str


class InputImage(Struct, tag="input_image", tag_field="type"):
    """An image; refused by text-only models."""

    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None


class InputFile(Struct, tag="input_file", tag_field="type"):
    """A file; refused."""

    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None


class ItemAudio(Struct, tag="input_audio", tag_field="type"):
    """Audio; refused."""


class SaidText(Struct, tag="output_text", tag_field="type"):
    """Text that the model said."""

    text: str


class SaidRefusal(Struct, tag="refusal", tag_field="type"):
    """An earlier answer's refusal."""

    refusal: str


Part = InputText | PlainText | InputImage | InputFile | ItemAudio | SaidText | SaidRefusal
Content = str | list[Part]


class InputMessage(Struct):
    """What somebody said; ``type`` may be left out."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    type: Literal["message"] | None = "message"
    id: str | None = None


class Thought(Struct):
    """A part of a thought, or of its summary."""

    text: str
    type: str | None = None


class InputReasoning(Struct):
    """What the model thought: as text, as a summary, or sealed."""

    type: Literal["reasoning"]
    summary: list[Thought] | None = None
    content: list[Thought] | None = None
    encrypted_content: str | None = None
    id: str | None = None


class InputFunctionCall(Struct):
    """A function that the model called; ``arguments`` is JSON text."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    namespace: str | None = None
    id: str | None = None


class InputCustomCall(Struct):
    """A custom tool that the model called with a text."""

    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    input: str
    namespace: str | None = None
    id: str | None = None


class InputOutput(Struct):
    """What a function or a custom tool answered."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: str
    output: Content
    id: str | None = None


class ItemReference(Struct):
    """An item that the service has kept, by its id; ``type`` may be left out."""

    id: str
    type: Literal["item_reference"] | None = None


InputItem = InputMessage | InputReasoning | InputFunctionCall | InputCustomCall | InputOutput


class TopLogprob(Struct, frozen=True):
    """An alternative."""

    token: str
    logprob: float
    bytes: list[int]


class TextLogprob(Struct, frozen=True):
    """A token of the text and its alternatives, likeliest first."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class OutputText(Struct, tag="output_text", tag_field="type"):
    """Text of the answer."""

    text: str
    annotations: list[str] = []
    logprobs: list[TextLogprob] = []


class OutputMessage(Struct, tag="message", tag_field="type", kw_only=True):
    """What the model says."""

    id: str
    status: ItemStatus
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]


class ReasoningText(Struct, tag="reasoning_text", tag_field="type"):
    """A thought."""

    text: str


class SummaryText(Struct, tag="summary_text", tag_field="type"):
    """A thought as a summary of itself."""

    text: str


class ReasoningItem(Struct, tag="reasoning", tag_field="type", kw_only=True):
    """What the model thinks."""

    id: str
    status: ItemStatus
    summary: list[SummaryText]
    content: list[ReasoningText]
    encrypted_content: str | UnsetType = UNSET


class FunctionCallItem(Struct, tag="function_call", tag_field="type", kw_only=True):
    """A function that the model calls."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    arguments: str


class CustomCallItem(Struct, tag="custom_tool_call", tag_field="type", kw_only=True):
    """A custom tool that the model calls."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    input: str


OutputItem = OutputMessage | ReasoningItem | FunctionCallItem | CustomCallItem
