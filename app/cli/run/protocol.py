"""A connection that a client cannot hold for nothing: uvicorn's, with a limit on everything it waits for.

uvicorn itself lets a connection stay open for ever that sends its request a byte at a time, or none, or does not read
its answer, and takes a head of any length. A request with both Content-Length and chunks is refused by the parser
(llhttp, in its strict mode).
"""

import asyncio
from typing import Any
from uuid import uuid4

import structlog
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.observability import HEADER
from app.settings import Settings

MAX_HEAD = 64 * 1024
"""Bytes of a request line and its headers."""


class Limits(Struct, frozen=True):
    """What connections may take. Times are seconds."""

    connections: int
    header_timeout: float
    stall_timeout: float

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """As the settings say."""
        return cls(settings.max_connections, settings.header_timeout, settings.stall_timeout)


class LimitedProtocol(HttpToolsProtocol):
    """One connection. ``limits`` comes first, then what uvicorn gives its protocols."""

    def __init__(self, limits: Limits, **given: Any) -> None:
        super().__init__(**given)
        self._limits = limits
        self._in_head = True
        self._head = 0
        self._patience: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse(503, "Too many connections are open; try again in a moment.", b"retry-after: 1\r\n")
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone; so are its clocks."""
        self._patience = _stopped(self._patience)
        self._stall = _stopped(self._stall)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a head count against ``MAX_HEAD`` and start the clock of the head."""
        if self._in_head:
            self._head += len(data)
            if self._head and self._patience is None and (self.cycle is None or self.cycle.response_complete):
                self._expect_head()
        super().data_received(data)
        if self._in_head and self._head > MAX_HEAD and not self.transport.is_closing():
            self._refuse(431, "The head of the request is too large.")

    def on_headers_complete(self) -> None:
        """The head has come in time."""
        self._patience = _stopped(self._patience)
        self._in_head, self._head = False, 0
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not None and self.cycle is not before and self.scope["http_version"] == "1.0":
            self.cycle.__class__ = Unchunked  # it has not begun: its task is new, or it waits in the pipeline

    def on_message_complete(self) -> None:
        """What comes next is another head."""
        self._in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A body that nobody wanted is not waited for; what the client does not read is dropped in the end."""
        unread = self.cycle is not None and not self._in_head and not self.pipeline
        super().on_response_complete()
        if unread and not self.transport.is_closing():
            self.transport.close()
        if self.transport.get_write_buffer_size() and self._stall is None:
            self._stall = self.loop.call_later(self._limits.stall_timeout, self._abort_if_unread)

    def pause_writing(self) -> None:
        """The client does not read: it has a while to begin again."""
        super().pause_writing()
        self._stall = _stopped(self._stall)
        self._stall = self.loop.call_later(self._limits.stall_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        self._stall = _stopped(self._stall)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What the parser refuses, in the shape of all refusals."""
        self._refuse(400, msg)

    def _expect_head(self) -> None:
        self._patience = self.loop.call_later(self._limits.header_timeout, self._too_slow)

    def _too_slow(self) -> None:
        if self.transport.is_closing():
            return
        if self._head:
            self._refuse(408, "The head of the request has not come in time.")
        else:
            self.transport.close()

    def _abort_if_unread(self) -> None:
        self._stall = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _refuse(self, status: int, message: str, header: bytes = b"") -> None:
        """Answer what never becomes a request; it has an id and a log line all the same."""
        name = uuid4().hex
        structlog.get_logger("switchyard").info(
            "request", status=status, outcome="refused", error=message, request_id=name
        )
        kind = "server_error" if status >= 500 else "invalid_request_error"
        body = b'{"error":{"message":"%s","type":"%s","param":null,"code":null}}' % (message.encode(), kind.encode())
        head = b"content-type: application/json\r\nconnection: close\r\n%s: %s\r\n%scontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % (HEADER, name.encode(), header, len(body)) + body)
        self.transport.close()
        self.loop.call_later(1.0, self.transport.abort)


class Unchunked(RequestResponseCycle):
    """An answer to HTTP/1.0, which knows no chunks: one of unknown length ends with its connection."""

    endless = False
    """Whether the answer has no length."""

    async def send(self, message: Any) -> None:
        """uvicorn's, told that the body has the length of what comes of it."""
        if message["type"] == "http.response.start":
            if all(name.lower() != b"content-length" for name, _ in message.get("headers", ())):
                self.endless, self.chunked_encoding, self.keep_alive = True, False, False
        elif self.endless:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """No timer any more, whether there was one or not."""
    if timer is not None:
        timer.cancel()
    return None
