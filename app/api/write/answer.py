"""From a running job to an HTTP answer: one stream of events, sent as it comes or folded into one piece."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from functools import partial
from time import time
from typing import Any, Protocol
from uuid import uuid4

from litestar import Request, Response
from msgspec import Struct

from app.api.errors import body_of
from app.api.observe.journal import Note, note_of
from app.api.observe.running import watched
from app.api.protect.connection import while_connected
from app.api.write.sse import EventStream, Source
from app.api.write.transcript import Head, Transcript
from app.errors import EngineFailed
from app.generation.events import Event, Events, Started
from app.observability import request_id
from app.schemas.errors import ErrorBody


class Renderer(Protocol):
    """A dialect: events as chunks, and as a whole answer."""

    def chunks(self, event: Event) -> list[Struct]:
        """The chunks that ``event`` makes."""

    def whole(self, transcript: Transcript) -> Struct:
        """The answer in one piece."""


async def answer(
    request: Request[Any, Any, Any],
    told: AsyncGenerator[Events, None],
    renderer: Callable[[Head], Renderer],
    *,
    stream: bool,
) -> Response[Any]:
    """Begin the job; what fails before that raises and keeps its HTTP status.

    The response owns ``told`` from then on. If the client goes, at any time, the job is cancelled.
    """
    note = note_of(request.scope)
    state = request.app.state
    told = watched(request.scope, told, state.vitals, state.request_timeout)
    (started,) = await while_connected(request.receive, anext(told))
    if not isinstance(started, Started):
        await told.aclose()
        raise EngineFailed("The answer did not begin; send the request again.")
    note.see(started)
    dialect = renderer(Head(uuid4().hex, int(time()), started.model, started.fingerprint))
    if stream:
        return EventStream(Source(told, partial(_chunks, dialect, note), partial(_failure, request, note)))
    return Response(dialect.whole(await while_connected(request.receive, _fold(told, note))))


def _chunks(dialect: Renderer, note: Note, events: Events) -> Iterator[Struct]:
    for event in events:
        note.see(event)
        yield from dialect.chunks(event)


def _failure(request: Request[Any, Any, Any], note: Note, error: Exception) -> ErrorBody:
    body = body_of(error, request_id(request.scope))
    note.failed(body)
    return body


async def _fold(told: AsyncGenerator[Events, None], note: Note) -> Transcript:
    transcript = Transcript()
    async with aclosing(told):
        async for events in told:
            for event in events:
                note.see(event)
                transcript.add(event)
    return transcript
