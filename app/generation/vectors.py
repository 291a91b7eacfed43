"""Vectors and scores of a leased model, told with the same events as an answer: who asks, how long, how many tokens."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from time import perf_counter
from typing import Generic, TypeVar

from msgspec import Struct

from app.engine.base import Engine
from app.engine.kind import Kind
from app.engine.leases import PendingLease
from app.engine.vectors import Embedding, Input, Ranking, Scores, Vectors
from app.errors import EngineFailed
from app.generation.events import Completed, Events, Started, Timings
from app.generation.limits import check_kind
from app.schemas.usage import Usage

Made = TypeVar("Made", Vectors, Scores)


class EmbedJob(Struct, frozen=True):
    """Texts, and how they are to be embedded."""

    texts: tuple[Input, ...]
    how: Embedding


class RerankJob(Struct, frozen=True):
    """A query, documents, and how they are to be scored."""

    query: str
    documents: tuple[str, ...]
    how: Ranking


class Computation(Generic[Made]):
    """Something that is computed of texts: its events, and after the last of them ``made``, by ``model``."""

    def __init__(self, lease: PendingLease, kind: Kind, compute: Callable[[Engine], Awaitable[Made]]) -> None:
        self._lease = lease
        self._kind = kind
        self._compute: Callable[[Engine], Awaitable[Made]] = compute
        self._made: Made | None = None
        self.model = ""

    @property
    def made(self) -> Made:
        """What it was for."""
        if self._made is None:
            raise EngineFailed("Nothing was computed; send the request again.")
        return self._made

    async def events(self) -> AsyncGenerator[Events, None]:
        """Nothing is taken before the first is asked for, everything is given back with the last."""
        asked = perf_counter()
        async with self._lease as held:
            check_kind(held, self._kind)
            self.model = held.model
            waited = Timings(max(0.0, perf_counter() - asked - held.load_seconds), held.load_seconds)
            yield (Started(held.model, held.engine.fingerprint, 0, waited),)
            began = perf_counter()
            made = self._made = await self._compute(held.engine)
            timings = Timings(waited.queue, waited.load, perf_counter() - began)
            yield (Completed(Usage(made.tokens, 0, made.tokens), timings),)


def embedding(lease: PendingLease, job: EmbedJob) -> Computation[Vectors]:
    """The vectors of texts."""
    return Computation(lease, "embedding", lambda engine: engine.embed(job.texts, job.how))


def ranking(lease: PendingLease, job: RerankJob) -> Computation[Scores]:
    """The scores of documents."""
    return Computation(lease, "rerank", lambda engine: engine.rerank(job.query, job.documents, job.how))
