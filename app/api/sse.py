"""Server-sent events: what is ready at once leaves in one write, silence is filled, a failure is one last frame.

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

from app.api.connection import cancel_when_gone
from app.api.outbox import Outbox
from app.schemas.errors import ErrorBody

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
KEEP_ALIVE_SECONDS = 15.0
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}

T = TypeVar("T")


class Source(Struct, Generic[T], frozen=True):
    """Where frames come from: the items, how one is rendered, how a failure is told."""

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
    """Writes the frames. One task reads the source, another sends, a third watches the client."""

    _should_set_content_length = False

    def __init__(self, source: Source[Any], keep_alive: float) -> None:
        super().__init__(headers=HEADERS, media_type="text/event-stream")
        self._source = source
        self._keep_alive = keep_alive
        self._outbox = Outbox()
        self._quiet = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and close the source."""
        async with aclosing(self._source.items):
            await super().__call__(scope, receive, send)

    async def send_body(self, send: Send, receive: Receive) -> None:
        """Write until the source ends or the client goes, whichever is first."""
        async with create_task_group() as group:
            group.start_soon(self._fill)
            group.start_soon(self._fill_silence)
            group.start_soon(cancel_when_gone, receive, group.cancel_scope)
            more = True
            while more:
                frames, more = await self._outbox.take()
                await send({"type": "http.response.body", "body": frames, "more_body": more})
            group.cancel_scope.cancel()

    async def _fill(self) -> None:
        """Source to outbox. After a failure there is no ``[DONE]``: the end of the stream must not look whole."""
        try:
            async for item in self._source.items:
                self._quiet = False
                for value in self._source.render(item):
                    self._outbox.frame(value)
                if self._outbox.full:
                    await self._outbox.room()
            self._outbox.put(DONE)
        except Exception as error:  # noqa: BLE001  after the first byte every failure is a frame
            self._outbox.frame(self._source.failure(error))
        self._outbox.close()

    async def _fill_silence(self) -> None:
        while True:
            self._quiet = True
            await sleep(self._keep_alive)
            if self._quiet:
                self._outbox.put(KEEP_ALIVE)
