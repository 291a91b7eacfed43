"""From a running computation to what it made: measured, bounded in time, ended when the client goes."""

import base64
from array import array
from contextlib import aclosing
from sys import byteorder
from typing import Any, Literal, TypeVar
from uuid import uuid4

import msgspec
from litestar import Request

from app.api.observe.journal import note_of
from app.api.observe.service_state import watched
from app.api.protect.connection import while_connected
from app.engine.vectors import Scores, Vectors
from app.generation.vectors import Computation
from app.schemas.embeddings import (
    Embedding,
    EmbeddingList,
    InputUsage,
    RerankDocument,
    RerankList,
    RerankResult,
)

Made = TypeVar("Made", Vectors, Scores)
WIDTH = 4
"""Bytes of a number."""


async def computed(request: Request[Any, Any, Any], computation: Computation[Made]) -> Made:
    """What the computation makes; raises what it fails with."""
    state = request.app.state
    source = watched(request.scope, computation.events(), state.service_state, state.request_timeout)
    note = note_of(request.scope)

    async def run() -> None:
        async with aclosing(source):
            async for events in source:
                for event in events:
                    note.see(event)

    await while_connected(request.receive, run())
    return computation.made


def embeddings(vectors: Vectors, model: str, form: Literal["float", "base64"]) -> bytes:
    """The answer, as JSON; to be called on another thread where there are many."""
    size = WIDTH * vectors.width
    rows = [vectors.values[at : at + size] for at in range(0, len(vectors.values), size)]
    written = [base64.b64encode(row).decode() if form == "base64" else _numbers(row) for row in rows]
    data = [Embedding(index=at, embedding=row) for at, row in enumerate(written)]
    return msgspec.json.encode(EmbeddingList(data=data, model=model, usage=_usage(vectors.tokens)))


def ranked(scores: Scores, model: str, documents: tuple[str, ...], *, top: int | None, texts: bool) -> RerankList:
    """The ``top`` documents, the best first, of equals the earlier one; with their ``texts`` where those are wanted."""
    order = sorted(range(len(documents)), key=lambda at: -scores.values[at])[:top]
    results = [
        RerankResult(
            index=at,
            relevance_score=scores.values[at],
            document=RerankDocument(documents[at]) if texts else msgspec.UNSET,
        )
        for at in order
    ]
    return RerankList(id=f"rerank-{uuid4().hex}", model=model, results=results, usage=_usage(scores.tokens))


def _numbers(row: bytes) -> list[float]:
    numbers = array("f", row)
    if byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _usage(tokens: int) -> InputUsage:
    return InputUsage(tokens, tokens)
