"""One HTTP exchange driven by hand, on the test's own loop: chunk by chunk, with a client that can go away."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self
from urllib.parse import unquote, urlsplit

import msgspec
from litestar import Litestar

ANYWHERE: Any = {"type": "http"}
"""The scope of a request of which nothing is asked."""


async def forever() -> Any:
    """What is received from a client that never goes and says nothing."""
    await asyncio.Event().wait()


def never(failure: Exception) -> Any:
    """What a failure is told as where there is none."""
    raise AssertionError from failure


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> Any:
        return self.json()["error"]


class Exchange:
    """The client's end. ``disconnect`` closes the connection; ``chunk`` waits for the next piece of the body."""

    def __init__(self, body: bytes | list[bytes]) -> None:
        self._requests = [body] if isinstance(body, bytes) else list(body)
        self._gone = asyncio.Event()
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        self._ended = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.task: asyncio.Task[None] | None = None

    async def receive(self) -> Any:
        if self._requests:
            body = self._requests.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self._requests)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def over(self) -> None:
        """Wait until the application has ended."""
        assert self.task is not None
        await self.task

    async def send(self, message: Any) -> None:
        if not self._gone.is_set():
            self._sent.put_nowait(message)

    def disconnect(self) -> None:
        self._gone.set()

    async def started(self) -> Self:
        """Wait for status and headers."""
        if not self.status:
            message = await self._next()
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        return self

    async def chunk(self) -> bytes | None:
        """The next piece of the body; None after the last."""
        await self.started()
        if self._ended:
            return None
        message = await self._next()
        self._ended = not message.get("more_body", False)
        return bytes(message["body"])

    async def chunks(self) -> list[bytes]:
        """Every piece to the end."""
        pieces = []
        while (piece := await self.chunk()) is not None:
            pieces.append(piece)
        return pieces

    async def answer(self) -> Answer:
        pieces = await self.chunks()
        return Answer(self.status, self.headers, b"".join(pieces))

    async def _next(self) -> Any:
        sent = asyncio.ensure_future(self._sent.get())
        assert self.task is not None
        await asyncio.wait({sent, self.task}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        if not sent.done() and self._sent.empty():
            sent.cancel()
            if self.task.done():
                self.task.result()
            raise AssertionError("the application sends nothing")
        return await sent


@asynccontextmanager
async def exchange(
    app: Litestar,
    method: str,
    url: str,
    body: bytes | list[bytes] = b"",
    headers: Mapping[str, str] | None = None,
    *,
    host: str = "localhost",
) -> AsyncIterator[Exchange]:
    """Send a request. On leaving, the client is gone and the application must have come to its end."""
    parts = urlsplit(url)
    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(parts.path),
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [(b"host", host.encode()), (b"content-type", b"application/json")]
        + [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    client = Exchange(body)
    client.task = asyncio.ensure_future(app(scope, client.receive, client.send))
    try:
        yield client
    finally:
        client.disconnect()
        await asyncio.wait_for(client.task, 20)


async def request(
    app: Litestar,
    method: str,
    url: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """A whole exchange; ``body`` is bytes as they are, anything else as JSON."""
    raw = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
    async with exchange(app, method, url, raw, headers) as client:
        return await client.answer()


def events(body: bytes) -> list[Any]:
    """The ``data:`` lines of a stream, decoded; ``[DONE]`` stays as text."""
    assert body.endswith(b"\n\n")
    lines = [frame.removeprefix(b"data: ") for frame in body.split(b"\n\n") if frame.startswith(b"data: ")]
    return ["[DONE]" if line == b"[DONE]" else msgspec.json.decode(line) for line in lines]
