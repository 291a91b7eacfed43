"""A lean load generator in a process of its own: ``python -m benchmarks.client`` reads a Load and writes the Answers.

While streams run it only notes when bytes came; HTTP and events are read apart after the last byte, because the
generator shares the machine's cores with the server it measures.
"""

import asyncio
import bisect
import os
import sys
import time
from contextlib import suppress
from typing import Any

import msgspec

HOST = "127.0.0.1"
BROKE_OFF = "the answer broke off"


class Ask(msgspec.Struct):
    """One request: ``after`` seconds from the start, or when one of ``at_once`` places is free.

    With ``beside`` it is there for the others: its connection is closed so many seconds after their last answer.
    """

    path: str
    body: dict[str, Any]
    after: float = 0.0
    beside: float | None = None


class Load(msgspec.Struct):
    """Requests to a port of this machine; ``at_once`` bounds how many run together (0: no bound)."""

    port: int
    asks: list[Ask]
    at_once: int = 0


class Answer(msgspec.Struct):
    """What came back. Times are seconds since the load began; ``times`` holds one for each piece of text."""

    status: int
    begun: float
    ended: float
    times: list[float]
    tokens: int = 0
    prompt: int = 0
    cached: int = 0
    error: str = ""
    text: str = ""

    @property
    def first(self) -> float:
        """Seconds from the request to the first text, or to the end of an answer without text."""
        return (self.times[0] if self.times else self.ended) - self.begun


class _Exchange(asyncio.Protocol):
    def __init__(self, request: bytes, done: asyncio.Future[None]) -> None:
        self._request = request
        self._done = done
        self.parts: list[tuple[float, bytes]] = []

    def connection_made(self, transport: Any) -> None:
        transport.write(self._request)  # uvloop's transports are none of asyncio's

    def data_received(self, data: bytes) -> None:
        self.parts.append((time.perf_counter(), data))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self._done.done():
            self._done.set_result(None)


class _Details(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    completion_tokens: int = 0
    prompt_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Text(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Text | None = None
    message: _Text | None = None
    text: str | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw(b"")


async def play(load: Load) -> list[Answer]:
    """Send every request and wait for every answer."""
    loop = asyncio.get_running_loop()
    places = asyncio.Semaphore(load.at_once or len(load.asks))
    start = time.perf_counter()
    beside: list[tuple[float, asyncio.BaseTransport]] = []

    async def one(ask: Ask) -> Answer | tuple[float, float, list[tuple[float, bytes]]]:
        request = _request(ask)
        if ask.after:
            await asyncio.sleep(ask.after - (time.perf_counter() - start))
        async with places:
            begun = time.perf_counter()
            exchange = _Exchange(request, loop.create_future())
            try:
                transport, _ = await loop.create_connection(lambda: exchange, HOST, load.port)
            except OSError as failure:
                return Answer(0, begun - start, time.perf_counter() - start, [], error=str(failure))
            if ask.beside is not None:
                beside.append((ask.beside, transport))
            await exchange._done  # noqa: SLF001
            return begun, time.perf_counter(), exchange.parts

    running = [asyncio.create_task(one(ask)) for ask in load.asks]
    await asyncio.gather(*(task for ask, task in zip(load.asks, running, strict=True) if ask.beside is None))
    for seconds, transport in beside:
        loop.call_later(seconds, transport.close)
    answers = [it if isinstance(it, Answer) else _read(start, *it) for it in await asyncio.gather(*running)]
    for ask, answer in zip(load.asks, answers, strict=True):
        if ask.beside is not None and answer.error == BROKE_OFF:
            answer.error = ""
    return answers


def _request(ask: Ask) -> bytes:
    body = msgspec.json.encode(ask.body)
    head = f"POST {ask.path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _read(start: float, begun: float, ended: float, parts: list[tuple[float, bytes]]) -> Answer:
    raw = b"".join(data for _, data in parts)
    head, _, body = raw.partition(b"\r\n\r\n")
    fields = head.split(b" ", 2)
    answer = Answer(int(fields[1]) if len(fields) > 2 else 0, begun - start, ended - start, [])
    head, skipped = head.lower(), len(raw) - len(body)
    body, ends = _unchunked(body) if b"transfer-encoding: chunked" in head else (body, [])
    came, total = [], 0
    for _, data in parts:
        total += len(data)
        came.append(total)

    def when(offset: int) -> float:
        """When the body's byte before ``offset`` arrived."""
        if ends:
            offset = ends[bisect.bisect_left(ends, (offset,))][1]
        return parts[min(bisect.bisect_left(came, offset + skipped), len(parts) - 1)][0] - start

    whole = b"text/event-stream" not in head
    for piece, end in [(body, len(body))] if whole else _events(body):
        with suppress(msgspec.DecodeError):
            _note(answer, msgspec.json.decode(piece, type=_Reply), when(end))
    if answer.status != 200:
        answer.error = body[:300].decode(errors="replace")
    elif (
        not answer.error and not (whole and (answer.tokens or answer.prompt)) and not body.endswith(b"data: [DONE]\n\n")
    ):
        answer.error = BROKE_OFF
    return answer


def _note(answer: Answer, reply: _Reply, when: float) -> None:
    if reply.error:
        answer.error = bytes(reply.error).decode()
    for choice in reply.choices:
        said = choice.delta or choice.message
        if text := choice.text or (said and said.content):
            answer.times.append(when)
            answer.text += text
    if reply.usage:
        answer.tokens = reply.usage.completion_tokens
        answer.prompt = reply.usage.prompt_tokens
        answer.cached = reply.usage.prompt_tokens_details.cached_tokens if reply.usage.prompt_tokens_details else 0


def _events(body: bytes) -> list[tuple[bytes, int]]:
    """The data of each event and where in the body it ends."""
    found, at = [], 0
    while (end := body.find(b"\n\n", at)) >= 0:
        if body.startswith(b"data: {", at):
            found.append((body[at + 6 : end], end + 2))
        at = end + 2
    return found


def _unchunked(raw: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """The body of a chunked answer, and for each chunk where it ends in the body and where in ``raw``."""
    body, ends, at = bytearray(), [], 0
    while (line := raw.find(b"\r\n", at)) >= 0 and (size := int(raw[at:line], 16)):
        body += raw[line + 2 : line + 2 + size]
        at = line + 2 + size + 2
        ends.append((len(body), at - 2))
    return bytes(body), ends


def _run(load: Load) -> list[Answer]:
    try:
        import uvloop  # noqa: PLC0415  where it is installed, it leaves the server more of the cores
    except ImportError:
        return asyncio.run(play(load))
    return uvloop.run(play(load))


def main() -> None:
    """Standard input to standard output."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    answers = memoryview(msgspec.json.encode(_run(load)))
    os.set_blocking(1, True)  # event loops leave a pipe as they like it
    while answers:
        answers = answers[os.write(1, answers) :]


if __name__ == "__main__":
    main()
