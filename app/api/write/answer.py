"""From a running job to an HTTP answer: one stream of events, sent as it comes or folded into one piece."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from time import time
from typing import Any, Protocol
from uuid import uuid4

from anyio import CancelScope
from litestar import Request, Response
from msgspec import Struct

from app.api.errors import body_of
from app.api.observe.journal import Note, note_of
from app.api.observe.service_state import watched
from app.api.protect.connection import while_connected
from app.api.write.sse import DONE, KEEP_ALIVE_SECONDS, EventStream, Source
from app.api.write.transcript import Head, Transcript
from app.errors import EngineFailed
from app.generation.events import Completed, Event, Events, Started
from app.observability import request_id
from app.schemas.errors import ErrorBody

UNENFORCED = "x-switchyard-unenforced-functions"
"""The header that names the functions whose calls follow no schema."""
MAX_HEADER = 4000
PATIENCE = 5.0
"""Seconds after which a stream begins although its request still waits for the model: what fails later is an event."""


class Renderer(Protocol):
    """One answer: events as chunks, and all of them as a whole."""

    def chunks(self, event: Event) -> list[Struct]:
        """The chunks that ``event`` makes."""

    def whole(self, transcript: Transcript) -> Struct:
        """The answer in one piece."""


class Dialect:
    """How one request is answered; what may be overridden here is how completions and chat do it.

    A silence of ``quiet_seconds`` is filled; ``ending`` follows a stream that has not failed.
    """

    quiet_seconds = KEEP_ALIVE_SECONDS
    ending = DONE

    def __init__(self, renderer: Callable[[Head], Renderer]) -> None:
        self.begin = renderer
        """What renders the answer, once it is known who makes it."""

    def opening(self) -> list[Struct]:
        """The events that a stream begins with, while perhaps nothing is known yet."""
        return []

    def silence(self) -> list[Struct]:
        """The events that fill a silence; none where a comment will do."""
        return []

    def failure(self, body: ErrorBody) -> Struct:
        """The event that tells of a failure; the last of its stream."""
        return body

    async def settle(self) -> None:
        """All has been rendered; the last of it is sent after this."""


async def answer(
    request: Request[Any, Any, Any],
    source: AsyncGenerator[Events, None],
    dialect: Dialect,
    *,
    stream: bool,
    headers: dict[str, str] | None = None,
) -> Response[Any]:
    """Begin the job; what fails before that raises and keeps its HTTP status, for ``PATIENCE`` seconds in a stream.

    The response owns ``source`` from then on. If the client goes, at any time, the job is cancelled.
    """
    note = note_of(request.scope)
    state = request.app.state
    source = watched(request.scope, source, state.service_state, state.request_timeout)
    if stream:
        chunks = Chunks(source, dialect, note)
        await while_connected(request.receive, chunks.begin())
        failure = partial(_failure, request, dialect, note)
        headers = _with_unenforced(headers, chunks.unenforced)
        sent = Source(chunks, list, failure, dialect.opening, dialect.silence, dialect.ending)
        return EventStream(sent, keep_alive=dialect.quiet_seconds, headers=headers)
    (started,) = await while_connected(request.receive, anext(source))
    if not isinstance(started, Started):
        await source.aclose()
        raise EngineFailed("The answer did not begin; send the request again.")
    note.see(started)
    renderer = dialect.begin(_head(started))
    whole = renderer.whole(await while_connected(request.receive, _fold(source, note)))
    await dialect.settle()
    return Response(whole, headers=_with_unenforced(headers, started.unenforced))


class Chunks:
    """A job's events as chunks. It owns ``source``, whose first events may still be waited for when a stream begins."""

    def __init__(self, source: AsyncGenerator[Events, None], dialect: Dialect, note: Note) -> None:
        self._source = source
        self._dialect = dialect
        self._note = note
        self._renderer: Renderer | None = None
        self._first: asyncio.Future[Events] | None = None
        self.unenforced: tuple[str, ...] = ()
        """As far as is known when the stream begins."""

    async def begin(self) -> None:
        """Wait until the job has begun, but for ``PATIENCE`` seconds at most; raises what has failed meanwhile."""
        self._first = first = asyncio.ensure_future(anext(self._source))
        try:
            await asyncio.wait({first}, timeout=PATIENCE)
        except BaseException:
            await self.aclose()
            raise
        if first.done():
            (started,) = first.result()
            self.unenforced = started.unenforced if isinstance(started, Started) else ()

    async def __anext__(self) -> list[Struct]:
        """The chunks of all that has come; ends with ``source``."""
        first, self._first = self._first, None
        events = await (anext(self._source) if first is None else first)
        if self._renderer is None:
            (started,) = events
            if not isinstance(started, Started):
                raise EngineFailed("The answer did not begin; send the request again.")
            self._renderer = self._dialect.begin(_head(started))
        chunks = []
        for event in events:
            self._note.see(event)
            chunks += self._renderer.chunks(event)
        if isinstance(events[-1], Completed):
            await self._dialect.settle()
        return chunks

    async def aclose(self) -> None:
        """Cancel the job."""
        if self._first is not None:
            self._first.cancel()
            with CancelScope(shield=True):
                await asyncio.wait({self._first})
            if not self._first.cancelled():
                self._first.exception()  # nobody else looks at it
        await self._source.aclose()


def _with_unenforced(headers: dict[str, str] | None, names: tuple[str, ...]) -> dict[str, str] | None:
    """The names of functions are ASCII letters, digits and a few marks, as the schema of requests has it."""
    return headers if not names else {**(headers or {}), UNENFORCED: ", ".join(names)[:MAX_HEADER]}


def _head(started: Started) -> Head:
    return Head(uuid4().hex, int(time()), started.model, started.fingerprint)


def _failure(request: Request[Any, Any, Any], dialect: Dialect, note: Note, error: Exception) -> Struct:
    body = body_of(error, request_id(request.scope))
    note.failed(body)
    return dialect.failure(body)


async def _fold(source: AsyncGenerator[Events, None], note: Note) -> Transcript:
    transcript = Transcript()
    async with aclosing(source):
        async for events in source:
            for event in events:
                note.see(event)
                transcript.add(event)
    return transcript
