"""``POST /v1/embeddings`` and ``POST /v1/rerank``: requests and answers.

Source of the shapes: OpenAI's embeddings reference (``EmbeddingCreateParams``, ``CreateEmbeddingResponse``) and, for
rerank, which OpenAI has not, what Cohere's (v2) and Jina's references have in common.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from app.schemas.common import KeepAlive, TokenId
from app.schemas.models import ModelField

MAX_INPUTS = 2048
MAX_DOCUMENTS = 10_000
Input = str | list[str | TokenId | list[TokenId]]
"""One text, several texts, the token ids of one text, or several of those; mixed lists are sorted out later."""
InputType = Literal["query", "document", "search_query", "search_document", "passage"]
Truncate = bool | Literal["none", "start", "end", "NONE", "START", "END"]


class EmbeddingRequest(ModelField, kw_only=True):
    """Texts that vectors are to be made of."""

    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None
    input_type: InputType | None = None
    prompt_name: Annotated[str, Meta(max_length=256)] | None = None
    truncate: Truncate | None = None
    keep_alive: KeepAlive | None = None


class Embedding(Struct, frozen=True, kw_only=True):
    """The vector of one input: numbers, or their 32 bits each, little-endian, in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class InputUsage(Struct, frozen=True):
    """Tokens of all inputs, special ones included; nothing is generated, so both are the same."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, frozen=True, kw_only=True):
    """A vector for each input, in their order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: InputUsage


class RerankDocument(Struct, frozen=True):
    """A document as an object; its other fields are not read."""

    text: str


class RerankRequest(ModelField, kw_only=True):
    """Documents that are to be ordered by what they have to do with a query."""

    query: Annotated[str, Meta(min_length=1)]
    documents: Annotated[list[str | RerankDocument], Meta(min_length=1, max_length=MAX_DOCUMENTS)]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None
    instruction: str | None = None
    truncate: bool | None = None
    keep_alive: KeepAlive | None = None


class RerankResult(Struct, frozen=True, kw_only=True):
    """One document: its place in the request, and how relevant it is."""

    index: int
    relevance_score: float
    document: RerankDocument | UnsetType = UNSET


class RerankList(Struct, frozen=True, kw_only=True):
    """The documents, the most relevant first."""

    id: str
    object: Literal["list"] = "list"
    model: str
    results: list[RerankResult]
    usage: InputUsage
