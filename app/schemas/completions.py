"""``POST /v1/completions``: the legacy shape, request, answer and chunks.

Source of the shapes: OpenAI's completions reference (``CompletionCreateParams`` and ``Completion``).
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from app.schemas.common import GenerationFields, MaxTokens, TokenId
from app.schemas.usage import Usage

PromptInput = str | list[str | TokenId | list[TokenId]]
"""One text, several texts, the token ids of one prompt, or several of those; mixed lists are sorted out later."""


class CompletionRequest(GenerationFields, kw_only=True):
    """Continue raw text; no chat template is applied."""

    prompt: PromptInput | None = None
    max_tokens: Annotated[MaxTokens, Meta(description="Tokens to generate at most; 16 by default.")] | None = None
    n_predict: Annotated[MaxTokens, Meta(description="max_tokens by another name.")] | None = None
    suffix: Annotated[str, Meta(description="Text after the gap that is to be filled.")] | None = None
    echo: Annotated[bool, Meta(description="Repeat the prompt before the completion.")] | None = None
    logprobs: (
        Annotated[int, Meta(ge=0, le=5, description="Alternatives per token with their log probabilities.")] | None
    ) = None
    best_of: (
        Annotated[int, Meta(ge=1, description="Candidates per prompt, of which the likeliest n are answered.")] | None
    ) = None


class CompletionLogprobs(Struct, frozen=True):
    """Four arrays of equal length. ``text_offset`` counts characters from the start of the choice's text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Struct, frozen=True):
    """One choice, or a piece of it in a chunk."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length", "content_filter"] | None = None


class Completion(Struct, frozen=True, kw_only=True):
    """The whole answer, or one chunk of a stream.

    In a stream ``usage`` is absent unless ``include_usage`` asks for it: then it is null in every chunk but the last.
    """

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET
