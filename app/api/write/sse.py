"""Server-sent events: what comes together leaves in one write, silence is filled, a failure is one last frame.

An event whose struct is tagged has the tag's name in an ``event:`` line. Source of the framing: the HTML standard's
section on server-sent events, and OpenAI's ``data: [DONE]`` ending.
"""

from asyncio import Event
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

from anyio import create_task_group, sleep
from litestar import Request, Response
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send
from msgspec import Struct
from msgspec.json import Encoder

from app.api.protect.connection import cancel_when_gone

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
KEEP_ALIVE_SECONDS = 15.0
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}

BREAKS = {it.encode(): f"\\u{ord(it):04x}".encode() for it in "\x85\u2028\u2029"}
"""Characters that readers of lines cut at beside CR and LF, and how JSON may spell them; it spells all below U+0020 so.
In frames they stand in strings alone."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Items(Protocol[T_co]):
    """What asynchronous generators are, as far as it is needed here."""

    def __anext__(self) -> Awaitable[T_co]: ...

    def aclose(self) -> Awaitable[None]:
        """Give up what is still made."""


def nothing() -> tuple[Struct, ...]:
    """No events."""
    return ()


def unbroken(frames: bytes) -> bytes:
    """``frames`` without a character, but for their own ends, at which a reader of Unicode lines would cut them."""
    for character, spelt in BREAKS.items():
        if character in frames:
            frames = frames.replace(character, spelt)
    return frames


class Source(Struct, Generic[T], frozen=True):
    """Where frames come from: the items, the events that one is told by, how a failure is told.

    ``opening`` makes the events that the stream begins with, ``silence`` those that fill a silence (none: a comment
    does); ``ending`` follows the last item where nothing has failed.
    """

    items: Items[T]
    render: Callable[[T], Iterable[Struct]]
    failure: Callable[[Exception], Struct]
    opening: Callable[[], Iterable[Struct]] = nothing
    silence: Callable[[], Iterable[Struct]] = nothing
    ending: bytes = DONE


class EventStream(Response[Any]):
    """A response that owns ``source.items`` and closes it before it ends, whatever happens.

    ``keep_alive`` is the number of seconds after which a silence is filled.
    """

    def __init__(
        self, source: Source[Any], *, keep_alive: float = KEEP_ALIVE_SECONDS, headers: dict[str, str] | None = None
    ) -> None:
        self._headers = HEADERS | (headers or {})
        super().__init__(None, status_code=200, media_type="text/event-stream", headers=self._headers)
        self._source = source
        self._keep_alive = keep_alive

    def to_asgi_response(
        self,
        app: Any,  # noqa: ARG002  Litestar's signature
        request: Request[Any, Any, Any],  # noqa: ARG002
        **_options: Any,
    ) -> ASGIResponse:
        """The ASGI side."""
        return ASGIEventStream(self._source, self._keep_alive, self._headers)


class ASGIEventStream(ASGIResponse):
    """Writes the frames of each item as soon as it comes, in the request's own task.

    Two more tasks watch the client and the silence. A slow reader holds the source back: what it makes meanwhile comes
    as one larger item. Events are made and handed over one after the other, so that their numbers are in order.
    """

    _should_set_content_length = False

    def __init__(self, source: Source[Any], keep_alive: float, headers: dict[str, str] = HEADERS) -> None:
        super().__init__(headers=headers, media_type="text/event-stream")
        self._source = source
        self._keep_alive = keep_alive
        self._encoder = Encoder()
        self._quiet = True
        self._writing = False
        self._filling: Event | None = None
        """While a silence is being filled; what is written then has its turn afterwards."""

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
        """After a failure there is no ending: the end of the stream must not look whole."""
        frames, more = self._frames(self._source.opening()), True
        while True:
            if self._filling is not None:
                await self._filling.wait()
            self._quiet = False
            if frames or not more:
                self._writing = True
                await send({"type": "http.response.body", "body": frames, "more_body": more})
                self._writing = False
            if not more:
                return
            try:
                frames = self._frames(self._source.render(await anext(self._source.items)))
            except StopAsyncIteration:
                frames, more = self._source.ending, False
            except Exception as error:  # noqa: BLE001  after the first byte every failure is a frame
                frames, more = self._frames([self._source.failure(error)]), False

    def _frames(self, values: Iterable[Struct]) -> bytes:
        """Each value as one event; all of them or, if one cannot be encoded, none."""
        frames = bytearray()
        for value in values:
            name = value.__struct_config__.tag
            if name is not None:
                frames += f"event: {name}\n".encode()
            frames += b"data: "
            self._encoder.encode_into(value, frames, -1)
            frames += b"\n\n"
        return unbroken(bytes(frames))

    async def _fill_silence(self, send: Send) -> None:
        while True:
            self._quiet = True
            await sleep(self._keep_alive)
            if self._quiet and not self._writing:
                self._filling = Event()
                filling = self._frames(self._source.silence()) or KEEP_ALIVE
                await send({"type": "http.response.body", "body": filling, "more_body": True})
                self._filling.set()
                self._filling = None
