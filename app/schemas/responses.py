"""``/v1/responses``: request, answer, and what is kept of it.

Source of the shapes: OpenAI's Responses reference (``ResponseCreateParams``, ``Response``).
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from app.schemas.chat import Effort
from app.schemas.common import GenerationFields
from app.schemas.response_items import OutputItem
from app.schemas.response_tools import ToolChoice
from app.schemas.structure import JSONObjectFormat, JSONSchema, TextFormat

OpenItem = dict[str, Any]
"""An item or a tool as it was sent: which struct it is depends on its ``type``, which may be missing or unknown."""
ResponseStatus = Literal["completed", "failed", "in_progress", "incomplete", "queued"]


class SchemaFormat(Struct, tag="json_schema", tag_field="type"):
    """JSON that follows a schema."""

    name: Annotated[str, Meta(max_length=256)]
    schema: JSONSchema
    description: str | None = None
    strict: bool | None = None


class TextSettings(Struct):
    """The form of the answer's text."""

    format: TextFormat | JSONObjectFormat | SchemaFormat | None = None
    verbosity: str | None = None


class ReasoningSettings(Struct):
    """How much the model thinks, and whether its thoughts are told as a summary too."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None

    @property
    def summed_up(self) -> bool:
        """Whether a summary is asked for, by its newer name or its older one."""
        return self.summary is not None or self.generate_summary is not None


class ConditionalResponseFields(GenerationFields, kw_only=True):
    """Fields that are accepted, or of which only some values are true here: ``app.api.read.fields`` says which."""

    access_programs: Any = None
    background: Any = None
    background_options: Any = None
    client_metadata: Any = None
    context_management: Any = None
    conversation: Any = None
    image: Any = None
    max_tool_calls: Any = None
    moderation: Any = None
    n: Any = None
    prompt: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    response_format: Any = None
    safety_identifier: Any = None
    service_tier: Any = None


class ResponseRequest(ConditionalResponseFields, kw_only=True):
    """Answer a conversation of items through the model's chat template."""

    input: (
        Annotated[str | list[OpenItem], Meta(description="A text, or items: messages, calls, their outputs, thoughts.")]
        | None
    ) = None
    instructions: Annotated[str, Meta(description="A system turn before all others.")] | None = None
    previous_response_id: (
        Annotated[str, Meta(description="Go on after a response that is kept; its instructions are not inherited.")]
        | None
    ) = None
    store: Annotated[bool, Meta(description="Keep the response; true by default where responses are kept.")] | None = (
        None
    )
    max_output_tokens: (
        Annotated[int, Meta(ge=-1, description="An upper bound; -1 or none: all that the context holds.")] | None
    ) = None
    text: Annotated[TextSettings, Meta(description="format: text, json_object or json_schema.")] | None = None
    reasoning: Annotated[ReasoningSettings, Meta(description="effort, and whether a summary is told.")] | None = None
    include: (
        Annotated[
            list[str], Meta(description="message.output_text.logprobs and reasoning.encrypted_content are honoured.")
        ]
        | None
    ) = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20, description="Alternatives per token.")] | None = None
    tools: (
        Annotated[list[OpenItem], Meta(max_length=256, description="function, namespace and custom tools.")] | None
    ) = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: Annotated[bool, Meta(description="Several calls in one answer; true by default.")] | None = (
        None
    )
    truncation: (
        Annotated[
            Literal["auto", "disabled"],
            Meta(description="auto leaves out the oldest items where the context cannot hold them."),
        ]
        | None
    ) = None
    metadata: Annotated[dict[str, str], Meta(description="Kept with the response.")] | None = None
    enable_thinking: Annotated[bool, Meta(description="Handed to the chat template.")] | None = None
    thinking_budget: (
        Annotated[int, Meta(ge=0, description="Tokens of thought, after which the thought is closed.")] | None
    ) = None
    chat_template_kwargs: (
        Annotated[dict[str, Any], Meta(description="Variables for the chat template, such as enable_thinking.")] | None
    ) = None


class ResponseInputDetails(Struct, frozen=True):
    """``cached_tokens`` of the input were already in the KV cache."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class ResponseOutputDetails(Struct, frozen=True):
    """``reasoning_tokens`` of the output were thoughts."""

    reasoning_tokens: int = 0


class ResponseUsage(Struct, frozen=True):
    """Token counts."""

    input_tokens: int
    input_tokens_details: ResponseInputDetails
    output_tokens: int
    output_tokens_details: ResponseOutputDetails
    total_tokens: int


class ResponseError(Struct, frozen=True):
    """Why a response has failed."""

    code: str
    message: str
    param: str | None = None


class IncompleteDetails(Struct, frozen=True):
    """Why a response ended early."""

    reason: Literal["max_output_tokens", "content_filter"]


class ResponseReasoning(Struct, frozen=True):
    """What was asked of the thoughts."""

    effort: str | None = None
    summary: str | None = None


class ResponseText(Struct, frozen=True):
    """What was asked of the text."""

    format: TextFormat | JSONObjectFormat | SchemaFormat
    verbosity: str = "medium"


class ResponseObject(Struct, kw_only=True):
    """A response: while it is made, and when it is whole."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: ResponseStatus
    background: Literal[False] = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    reasoning: ResponseReasoning
    safety_identifier: str | None = None
    service_tier: Literal["default"] = "default"
    store: bool
    temperature: float
    text: ResponseText
    tool_choice: Literal["none", "auto", "required"] | ToolChoice
    tools: list[OpenItem]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None = None
    user: str | None = None


class ResponseItemList(Struct, kw_only=True):
    """The input of a response, a page of it."""

    object: Literal["list"] = "list"
    data: list[OpenItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ResponseDeleted(Struct, kw_only=True):
    """A response is no longer kept."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class InputTokens(Struct, kw_only=True):
    """How many tokens an input has."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int
