"""From requests for vectors and scores to jobs; every value that cannot be honoured is refused."""

from typing import Literal

from app.api.read.durations import seconds
from app.engine.vectors import Embedding, Input, Ranking
from app.errors import InvalidRequest
from app.generation.vectors import EmbedJob, RerankJob
from app.schemas.common import KeepAlive
from app.schemas.embeddings import MAX_INPUTS, EmbeddingRequest, RerankRequest, Truncate

QUERIES = {"query", "search_query"}
CUTS: dict[str, Literal["start", "end"]] = {"start": "start", "end": "end"}


def keep_alive(value: KeepAlive | None) -> float | None:
    """Seconds that the model stays after this request; None leaves it to the settings."""
    return None if value is None else seconds(value, param="keep_alive")


def embed_job(request: EmbeddingRequest) -> EmbedJob:
    """Raises :class:`InvalidRequest` for what cannot be honoured."""
    if request.input_type is not None and request.prompt_name is not None:
        raise InvalidRequest("input_type and prompt_name both choose the prompt; send one.", param="prompt_name")
    kind: Literal["query", "document"] | None = None
    if request.input_type is not None:
        kind = "query" if request.input_type in QUERIES else "document"
    how = Embedding(
        prompt_name=request.prompt_name,
        input_type=kind,
        dimensions=request.dimensions,
        truncate=_cut(request.truncate),
    )
    return EmbedJob(inputs(request), how)


def inputs(request: EmbeddingRequest) -> tuple[Input, ...]:
    """One entry per input: a text, or token ids."""
    given = request.input
    if isinstance(given, str):
        return (given,)
    if not given:
        raise InvalidRequest("input must not be an empty list.", param="input")
    ids = tuple(item for item in given if isinstance(item, int))
    if len(ids) == len(given):
        return (ids,)
    kinds = {type(item) for item in given}
    if len(kinds) > 1:
        message = "input must be texts, one list of token ids, or lists of them, not a mixture."
        raise InvalidRequest(message, param="input")
    if len(given) > MAX_INPUTS:
        raise InvalidRequest(f"input holds {len(given)} inputs; at most {MAX_INPUTS} are taken.", param="input")
    return tuple(item if isinstance(item, str) else tuple(item) for item in given if not isinstance(item, int))


def rerank_job(request: RerankRequest) -> RerankJob:
    """A document that is too long loses its end, unless that is not wanted."""
    documents = tuple(it if isinstance(it, str) else it.text for it in request.documents)
    how = Ranking(instruction=request.instruction, truncate=request.truncate is not False)
    return RerankJob(request.query, documents, how)


def _cut(asked: Truncate | None) -> Literal["start", "end"] | None:
    """Where a text that is too long is cut."""
    if isinstance(asked, str):
        return CUTS.get(asked.lower())
    return "end" if asked else None
