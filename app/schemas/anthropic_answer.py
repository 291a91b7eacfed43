"""``POST /v1/messages``: what is answered, whole and event by event.

Source of the shapes: Anthropic's Messages reference (``Message``, ``RawMessageStreamEvent``, ``ErrorResponse``). An
event's tag is its name as well.
"""

from datetime import datetime
from typing import Literal

from msgspec import Raw, Struct

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "model_context_window_exceeded"]


class AnswerText(Struct, frozen=True, tag="text", tag_field="type"):
    """What the model says."""

    text: str


class AnswerThinking(Struct, frozen=True, tag="thinking", tag_field="type"):
    """What it thinks, signed; where the thought is left out, the signature holds it."""

    thinking: str
    signature: str


class AnswerToolUse(Struct, frozen=True, tag="tool_use", tag_field="type"):
    """A call; ``input`` is a JSON object, empty until its pieces come."""

    id: str
    name: str
    input: Raw


AnswerBlock = AnswerText | AnswerThinking | AnswerToolUse


class OutputTokensDetails(Struct, frozen=True):
    """``thinking_tokens`` of the output were thoughts."""

    thinking_tokens: int = 0


class MessageUsage(Struct, frozen=True, kw_only=True):
    """Token counts. The prompt is ``input_tokens`` and ``cache_read_input_tokens`` together."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens: int = 0
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    service_tier: Literal["standard"] = "standard"


class AnthropicMessage(Struct, frozen=True, kw_only=True, tag="message", tag_field="type"):
    """The answer; at the beginning of a stream without content."""

    id: str
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[AnswerBlock]
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: MessageUsage


class TextDelta(Struct, frozen=True, tag="text_delta", tag_field="type"):
    """More text."""

    text: str


class ThinkingDelta(Struct, frozen=True, tag="thinking_delta", tag_field="type"):
    """More of a thought."""

    thinking: str


class SignatureDelta(Struct, frozen=True, tag="signature_delta", tag_field="type"):
    """The signature of a thought that has ended."""

    signature: str


class InputDelta(Struct, frozen=True, tag="input_json_delta", tag_field="type"):
    """More of a call's input, which together is JSON text."""

    partial_json: str


class Ending(Struct, frozen=True):
    """Why the answer ended."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageStart(Struct, frozen=True, tag="message_start", tag_field="type"):
    """The first event of an answer."""

    message: AnthropicMessage


class BlockStart(Struct, frozen=True, tag="content_block_start", tag_field="type"):
    """A block begins."""

    index: int
    content_block: AnswerBlock


class BlockDelta(Struct, frozen=True, tag="content_block_delta", tag_field="type"):
    """A block grows."""

    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputDelta


class BlockStop(Struct, frozen=True, tag="content_block_stop", tag_field="type"):
    """A block has ended."""

    index: int


class MessageDelta(Struct, frozen=True, tag="message_delta", tag_field="type"):
    """The answer has ended, and what it took in all."""

    delta: Ending
    usage: MessageUsage


class MessageStop(Struct, frozen=True, tag="message_stop", tag_field="type"):
    """The last event."""


class Ping(Struct, frozen=True, tag="ping", tag_field="type"):
    """A sign of life while nothing is said."""


class ErrorDetails(Struct, frozen=True, omit_defaults=True):
    """For programs: a word for the failure, the request field at fault, and what of the request is not offered."""

    error_code: str | None = None
    param: str | None = None
    unsupported: tuple[str, ...] = ()


class AnthropicErrorDetail(Struct, frozen=True):
    """What went wrong."""

    type: str
    message: str
    details: ErrorDetails | None = None


class AnthropicError(Struct, frozen=True, tag="error", tag_field="type"):
    """The body of a failure, or the last event of a stream that failed."""

    error: AnthropicErrorDetail
    request_id: str


MessagesStreamEvent = (
    MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | Ping | AnthropicError
)
"""What a stream is made of."""


class TokenCount(Struct, frozen=True):
    """``POST /v1/messages/count_tokens``: the tokens of the whole prompt."""

    input_tokens: int


class AnthropicModel(Struct, frozen=True, kw_only=True, tag="model", tag_field="type"):
    """A model that may be asked for."""

    id: str
    display_name: str
    created_at: datetime
    lifecycle: Literal["active"] = "active"
    max_input_tokens: int | None
    max_tokens: int | None


class AnthropicModelList(Struct, frozen=True, kw_only=True):
    """A page of them."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None
