"""``POST /v1/messages`` and ``/v1/messages/count_tokens``: what is asked.

Source of the shapes: Anthropic's Messages reference (``MessageCreateParams``, ``MessageCountTokensParams``). Fields
that newer models no longer take (``temperature``, ``top_p``, ``top_k``) and some of its betas stand beside them.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from app.schemas.sampling import SamplingFields

ToolName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class TextBlock(Struct, tag="text", tag_field="type"):
    """A piece of text."""

    text: str


class ImageBlock(Struct, tag="image", tag_field="type"):
    """An image; refused by text-only models."""

    source: Any


class DocumentBlock(Struct, tag="document", tag_field="type"):
    """A document; refused."""

    source: Any


class SearchResultBlock(Struct, tag="search_result", tag_field="type"):
    """A passage that was found; refused."""

    content: Any


class ToolReferenceBlock(Struct, tag="tool_reference", tag_field="type"):
    """A tool that a search has found; refused, since there are no deferred tools."""

    tool_name: str


class ThinkingBlock(Struct, tag="thinking", tag_field="type"):
    """What the assistant thought. Where the thought was left out, the signature holds it."""

    thinking: str
    signature: str = ""


class RedactedThinkingBlock(Struct, tag="redacted_thinking", tag_field="type"):
    """A thought that only another service can read; left out."""

    data: str


class ToolUseBlock(Struct, tag="tool_use", tag_field="type"):
    """A call that the assistant made."""

    id: str
    name: str
    input: dict[str, Any]


ResultBlock = TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolReferenceBlock


class ToolResultBlock(Struct, tag="tool_result", tag_field="type"):
    """What a tool answered, or that it failed."""

    tool_use_id: str
    content: str | list[ResultBlock] | None = None
    is_error: bool | None = None


UserBlock = TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolResultBlock
AssistantBlock = TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock


class UserTurn(Struct, tag="user", tag_field="role"):
    """What the person says, and what tools answered."""

    content: str | list[UserBlock]


class AssistantTurn(Struct, tag="assistant", tag_field="role"):
    """What the model said, thought and called; the last turn is what its answer begins with."""

    content: str | list[AssistantBlock]


class SystemTurn(Struct, tag="system", tag_field="role"):
    """Instructions inside the conversation."""

    content: str | list[TextBlock]


Turn = UserTurn | AssistantTurn | SystemTurn


class MessagesTool(Struct):
    """A function; ``type`` is only needed, and refused, for tools that run on Anthropic's servers."""

    name: ToolName
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None


class AutoChoice(Struct, tag="auto", tag_field="type"):
    """Calls as the model likes."""

    disable_parallel_tool_use: bool | None = None


class AnyChoice(Struct, tag="any", tag_field="type"):
    """At least one call."""

    disable_parallel_tool_use: bool | None = None


class NamedChoice(Struct, tag="tool", tag_field="type"):
    """A call of one tool."""

    name: ToolName
    disable_parallel_tool_use: bool | None = None


class NoChoice(Struct, tag="none", tag_field="type"):
    """No calls."""


Display = Literal["summarized", "omitted"]


class ThinkingEnabled(Struct, tag="enabled", tag_field="type"):
    """Think, for so many tokens at most."""

    budget_tokens: Annotated[int, Meta(ge=0)]
    display: Display | None = None


class ThinkingAdaptive(Struct, tag="adaptive", tag_field="type"):
    """Think as the model likes."""

    display: Display | None = None


class ThinkingBetweenTools(Struct, tag="between_tools", tag_field="type"):
    """Think as the model likes, between calls as well."""

    display: Display | None = None


class ThinkingDisabled(Struct, tag="disabled", tag_field="type"):
    """Do not think, as far as the model can do without."""


Thinking = ThinkingEnabled | ThinkingAdaptive | ThinkingBetweenTools | ThinkingDisabled


class JSONOutput(Struct, tag="json_schema", tag_field="type"):
    """JSON that follows a schema."""

    schema: dict[str, Any]


class OutputConfig(Struct):
    """How hard the model thinks, and the form of its answer."""

    effort: Effort | None = None
    format: JSONOutput | None = None


class CountTokensRequest(SamplingFields, kw_only=True):
    """Everything that a prompt is made of."""

    messages: Annotated[list[Turn], Meta(min_length=1)]
    system: str | list[TextBlock] | None = None
    tools: Annotated[list[MessagesTool], Meta(description="Functions that the model may call.")] | None = None
    tool_choice: AutoChoice | AnyChoice | NamedChoice | NoChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: JSONOutput | None = None
    cache_control: Any = None
    context_management: Any = None
    mcp_servers: Any = None
    container: Any = None
    speed: Any = None
    user_profile_id: Any = None
    workspace_id: Any = None


class MessagesRequest(CountTokensRequest, kw_only=True):
    """Answer a conversation."""

    max_tokens: Annotated[int, Meta(ge=0, description="An upper bound; 0 only computes the prompt.")]
    stop_sequences: Annotated[list[str], Meta(max_length=64)] | None = None
    stream: Annotated[bool, Meta(description="Answer with server-sent events.")] | None = None
    metadata: Any = None
    service_tier: Any = None
    inference_geo: Any = None
    diagnostics: Any = None
    compaction: Any = None
    fallbacks: Any = None
    thread: Any = None
