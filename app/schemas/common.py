"""Request fields that completions and chat completions share beside sampling."""

from typing import Annotated

from msgspec import Meta, Struct

from app.schemas.structure import StructureFields

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Stop = str | Annotated[list[str], Meta(max_length=64)]
MaxTokens = Annotated[int, Meta(ge=-1)]
"""An upper bound; -1: as many as the context holds."""
KeepAlive = str | Annotated[float, Meta(ge=-1e9, le=1e9)]


class StreamOptions(Struct):
    """What a stream carries beside its text."""

    include_usage: Annotated[bool, Meta(description="Send token counts in a last chunk.")] | None = None
    continuous_usage_stats: (
        Annotated[bool, Meta(description="With include_usage: the counts so far in every chunk.")] | None
    ) = None
    include_obfuscation: Annotated[bool, Meta(description="Only false: chunks are not padded.")] | None = None


class GenerationFields(StructureFields, kw_only=True):
    """How long a choice may grow, where it stops, how it is sent."""

    n: Annotated[int, Meta(ge=1, description="Choices for each prompt; 1 by default.")] | None = None
    stop: Stop | None = None
    stream: Annotated[bool, Meta(description="Answer with server-sent events, chunk by chunk.")] | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Meta(description="Accepted and not used.")] | None = None
    stop_token_ids: list[TokenId] | None = None
    ignore_eos: (
        Annotated[bool, Meta(description="Go on to max_tokens although the model would end its answer.")] | None
    ) = None
    min_tokens: Annotated[int, Meta(ge=0, description="No end before that many tokens.")] | None = None
    keep_alive: KeepAlive | None = None
