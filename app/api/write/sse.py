"""Server-sent events: what comes together leaves in one write, silence is filled, a failure is one last frame.

Source of the framing: the HTML standard's section on server-sent events, and OpenAI's ``data: [DONE]`` ending.
"""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from anyio import create_task_group, sleep
from litestar import Request, Response
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send
from msgspec import Struct
from msgspec.json import Encoder

from app.api.protect.connection import cancel_when_gone
from app.schemas.errors import ErrorBody

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
KEEP_ALIVE_SECONDS = 15.0
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}

T = TypeVar("T")


class Source(Struct, Generic[T], frozen=True):
    """Where frames come from: the items, the events that one is told by, how a failure is told."""

    items: AsyncGenerator[T, None]
    render: Callable[[T], Iterable[Struct]]
    failure: Callable[[Exception], ErrorBody]


class EventStream(Response[Any]):
    """A response that owns ``source.items`` and closes it before it ends, whatever happens.

    ``keep_alive`` is the number of silent seconds after which a comment is sent.
    """

    def __init__(self, source: Source[Any], *, keep_alive: float = KEEP_ALIVE_SECONDS) -> None:
        super().__init__(None, status_code=200, media_type="text/event-stream", headers=HEADERS)
        self._source = source
        self._keep_alive = keep_alive

    def to_asgi_response(
        self,
        app: Any,  # noqa: ARG002  Litestar's signature
        request: Request[Any, Any, Any],  # noqa: ARG002
        **_options: Any,
    ) -> ASGIResponse:
        """The ASGI side."""
        return ASGIEventStream(self._source, self._keep_alive)


class ASGIEventStream(ASGIResponse):
    """Writes the frames of each item as soon as it comes, in the request's own task.

    Two more tasks watch the client and the silence. A slow reader holds the source back: what it makes meanwhile comes
    as one larger item.
    """

    _should_set_content_length = False

    def __init__(self, source: Source[Any], keep_alive: float) -> None:
        super().__init__(headers=HEADERS, media_type="text/event-stream")
        self._source = source
        self._keep_alive = keep_alive
        self._encoder = Encoder()
        self._quiet = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and close the source."""
        async with aclosing(self._source.items):
            await super().__call__(scope, receive, send)

    async def send_body(self, send: Send, receive: Receive) -> None:
        """Write until the source ends or the client goes, whichever is first."""
        async with create_task_group() as group:
            group.start_soon(self._fill_silence, send)
            group.start_soon(cancel_when_gone, receive, group.cancel_scope)
            await self._write(send)
            group.cancel_scope.cancel()

    async def _write(self, send: Send) -> None:
        """After a failure there is no ``[DONE]``: the end of the stream must not look whole."""
        while True:
            more = True
            try:
                frames = self._frames(self._source.render(await anext(self._source.items)))
            except StopAsyncIteration:
                frames, more = DONE, False
            except Exception as error:  # noqa: BLE001  after the first byte every failure is a frame
                frames, more = self._frames([self._source.failure(error)]), False
            self._quiet = False
            if frames:
                await send({"type": "http.response.body", "body": frames, "more_body": more})
            if not more:
                return

    def _frames(self, values: Iterable[Struct]) -> bytes:
        """Each value as one event; all of them or, if one cannot be encoded, none."""
        frames = bytearray()
        for value in values:
            frames += b"data: "
            self._encoder.encode_into(value, frames, -1)
            frames += b"\n\n"
        return bytes(frames)

    async def _fill_silence(self, send: Send) -> None:
        while True:
            self._quiet = True
            await sleep(self._keep_alive)
            if self._quiet:
                await send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})
