"""``POST /v1/chat/completions``: request, answer and chunks.

Source of the shapes: OpenAI's chat completions reference (``CompletionCreateParams``, ``ChatCompletion`` and
``ChatCompletionChunk``).
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from app.schemas.common import GenerationFields, MaxTokens
from app.schemas.messages import FunctionCall, Message, ToolCall
from app.schemas.tools import (
    FunctionChoice,
    FunctionDefinition,
    FunctionDelta,
    ToolCallDelta,
    ToolChoice,
    ToolDefinition,
)
from app.schemas.usage import Usage

FinishReason = Literal["stop", "length", "tool_calls", "function_call", "content_filter"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ConditionalFields(GenerationFields, kw_only=True):
    """Fields of which only some values are true here: ``app.api.read.fields`` says which; others are refused."""

    audio: Any = None
    modalities: Any = None
    moderation: Any = None
    prediction: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    service_tier: Any = None
    store: Any = None
    verbosity: Any = None
    web_search_options: Any = None


class ChatRequest(ConditionalFields, kw_only=True):
    """Answer a conversation through the model's chat template."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: (
        Annotated[MaxTokens, Meta(description="Tokens to generate at most; as many as the context holds by default.")]
        | None
    ) = None
    max_tokens: Annotated[MaxTokens, Meta(description="The older name of max_completion_tokens.")] | None = None
    n_predict: Annotated[MaxTokens, Meta(description="max_tokens by another name.")] | None = None
    logprobs: Annotated[bool, Meta(description="Send each token's log probability.")] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20, description="Alternatives per token; needs logprobs.")] | None = None
    reasoning_effort: (
        Annotated[Effort, Meta(description="Handed to the chat template; none turns thinking off.")] | None
    ) = None
    enable_thinking: Annotated[bool, Meta(description="Handed to the chat template.")] | None = None
    thinking_budget: (
        Annotated[int, Meta(ge=0, description="Tokens of thought, after which the thought is closed.")] | None
    ) = None
    thinking_token_budget: (
        Annotated[int, Meta(ge=-1, description="thinking_budget by another name; -1 is none.")] | None
    ) = None
    think: Annotated[bool | Effort, Meta(description="enable_thinking, or reasoning_effort as a word.")] | None = None
    tools: (
        Annotated[list[ToolDefinition], Meta(max_length=128, description="Functions that the model may call.")] | None
    ) = None
    tool_choice: (
        Annotated[ToolChoice, Meta(description="auto by default; required and named functions are forced.")] | None
    ) = None
    parallel_tool_calls: Annotated[bool, Meta(description="Several calls in one answer; true by default.")] | None = (
        None
    )
    functions: (
        Annotated[list[FunctionDefinition], Meta(max_length=128, description="The older form of tools.")] | None
    ) = None
    function_call: Annotated[FunctionChoice, Meta(description="The older form of tool_choice.")] | None = None
    metadata: Annotated[dict[str, str], Meta(description="Accepted and not stored.")] | None = None
    prompt_cache_key: Annotated[str, Meta(description="Accepted; equal prefixes are always shared.")] | None = None
    safety_identifier: Annotated[str, Meta(description="Accepted and not used.")] | None = None
    continue_final_message: (
        Annotated[bool, Meta(description="Go on with the last message, an assistant's, instead of answering it.")]
        | None
    ) = None
    add_generation_prompt: (
        Annotated[bool, Meta(description="The opposite of continue_final_message; true by default.")] | None
    ) = None
    chat_template_kwargs: (
        Annotated[dict[str, Any], Meta(description="Variables for the chat template, such as enable_thinking.")] | None
    ) = None


class ChatTopLogprob(Struct, frozen=True):
    """An alternative; ``bytes`` is null for tokens that stand for no text."""

    token: str
    bytes: list[int] | None
    logprob: float


class ChatTokenLogprob(Struct, frozen=True):
    """A token of the answer and its alternatives, likeliest first."""

    token: str
    bytes: list[int] | None
    logprob: float
    top_logprobs: list[ChatTopLogprob]


class ChatLogprobs(Struct, frozen=True):
    """Log probabilities of the content's tokens."""

    content: list[ChatTokenLogprob]
    refusal: None = None


class AnswerMessage(Struct, frozen=True, kw_only=True):
    """What the model said."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET
    function_call: FunctionCall | UnsetType = UNSET


class ChatChoice(Struct, frozen=True):
    """One choice of a whole answer."""

    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None = None


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """The whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(Struct, frozen=True, omit_defaults=True):
    """More of a message; the role only in a choice's first."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    function_call: FunctionDelta | None = None


class ChunkChoice(Struct, frozen=True):
    """A piece of one choice."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(Struct, frozen=True, kw_only=True):
    """One chunk of a stream. ``usage`` is absent unless ``include_usage`` asks for it, then null until the last."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET
