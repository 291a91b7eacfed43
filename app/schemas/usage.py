"""Token counts, as OpenAI reports them."""

from msgspec import Struct


class PromptTokensDetails(Struct, frozen=True):
    """``cached_tokens`` of the prompt were already in the KV cache."""

    cached_tokens: int = 0


class CompletionTokensDetails(Struct, frozen=True):
    """``reasoning_tokens`` of the completion were thoughts."""

    reasoning_tokens: int = 0


class Usage(Struct, frozen=True):
    """Counted from the tokens themselves, never by encoding text again."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails = PromptTokensDetails()
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()
