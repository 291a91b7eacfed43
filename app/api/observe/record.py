"""What is measured of one request: who asked which model, what it took, how it ended. Never what was said."""

from bisect import bisect_left
from collections.abc import Callable
from time import perf_counter, time_ns
from typing import Any, Literal

import structlog
from msgspec.structs import replace

from app.generation.events import Completed, Delta, Event, Started, Timings, ToolCallArguments, ToolCallStarted
from app.generation.meter import Meter
from app.observability import HEADER, ASGIApp, Message, Receive, Scope, Send, request_id

Outcome = Literal["answered", "refused", "failed", "left"]

GAPS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds in seconds of the buckets that gaps between pieces of text are counted in; one more is above them."""


class Record:
    """Written by whoever learns something, in the request's own task. Times are seconds since it came."""

    def __init__(self, scope: Any) -> None:
        self.id = request_id(scope)
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.began = perf_counter()
        self.began_ns = time_ns()
        self.key: str | None = None
        self.model: str | None = None
        self.status = 0
        self.complete = False
        self.error: str | None = None
        self.seconds = 0.0
        self.first_token: float | None = None
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.completion_tokens = 0
        self.timings: Timings | None = None
        self.meter = Meter()
        self.gaps = [0] * (len(GAPS) + 1)
        self.gap_seconds = 0.0
        self._last = 0.0

    def now(self) -> float:
        """Seconds since the request came."""
        return perf_counter() - self.began

    def see(self, event: Event) -> None:
        """What the running job tells."""
        match event:
            case Delta() | ToolCallStarted() | ToolCallArguments():
                self._piece()
            case Started():
                self.model, self.prompt_tokens, self.timings = event.model, event.prompt_tokens, event.timings
            case Completed():
                usage, self.timings = event.usage, event.timings
                self.prompt_tokens, self.completion_tokens = usage.prompt_tokens, usage.completion_tokens
                self.cached_tokens = usage.prompt_tokens_details.cached_tokens
            case _:
                pass

    def settle(self) -> None:
        """Take from the meter what an answer has not come to tell: its client left, or it failed."""
        self.seconds = self.now()
        self.completion_tokens = max(self.completion_tokens, self.meter.completion_tokens)
        if self.timings is not None:
            self.timings = replace(self.timings, queue=max(self.timings.queue, self.meter.queue))

    @property
    def outcome(self) -> Outcome:
        """How it ended, once it has."""
        if self.status >= 500:
            return "failed"
        if not self.complete or self.status == 499:
            return "left"
        if self.status >= 400:
            return "refused"
        return "answered" if self.error is None else "failed"

    @property
    def tokens_per_second(self) -> float | None:
        """Generated tokens by the time from the first of them to the last."""
        decode = 0.0 if self.timings is None else self.timings.decode
        return self.completion_tokens / decode if decode > 0 and self.completion_tokens else None

    def _piece(self) -> None:
        now = self.now()
        if self.first_token is None:
            self.first_token = now
        else:
            gap = now - self._last
            self.gap_seconds += gap
            self.gaps[bisect_left(GAPS, gap)] += 1
        self._last = now


def record_of(scope: Any) -> Record:
    """The record of a running request; one that nobody reads outside of the service."""
    record = scope.get("state", {}).get("record")
    return record if isinstance(record, Record) else Record(scope)


QUIET = ("/health", "/metrics", "/page/")
"""Asked for by machines all the time, or dozens together by every visit of the page: logged at debug."""

Observer = Callable[[Record], None]


def observed(app: ASGIApp, *tell: Observer) -> ASGIApp:
    """``app``, with the request id and timings on every answer and one log line per request, however it ends.

    The record of the request is then told to each of ``tell``.
    """

    async def observe(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        request_id(scope)
        record = scope["state"]["record"] = Record(scope)
        structlog.contextvars.bind_contextvars(request_id=record.id)

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], *_headers(record)]
            elif not message.get("more_body", False):
                record.complete = True
            await send(message)

        try:
            await app(scope, receive, watch)
        finally:
            record.settle()
            _log(record)
            for it in tell:
                it(record)

    return observe


def _headers(record: Record) -> list[tuple[bytes, bytes]]:
    """The answer's own; ``server-timing`` has what is known when it begins, all of it only for whole answers."""
    fields = [(HEADER, record.id.encode()), (b"openai-processing-ms", b"%d" % (1000 * record.now()))]
    timings = record.timings
    if timings is not None:
        parts = {"queue": timings.queue, "load": timings.load}
        if timings.prefill or timings.decode:
            parts |= {"prefill": timings.prefill, "decode": timings.decode}
        text = ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in parts.items())
        fields.append((b"server-timing", text.encode()))
    return fields


def _log(record: Record) -> None:
    timings = record.timings
    fields = {
        "key": record.key,
        "model": record.model,
        "error": record.error,
        "prompt_tokens": record.prompt_tokens if timings else None,
        "completion_tokens": record.completion_tokens if timings else None,
        "queue_ms": _ms(timings.queue if timings else record.meter.queue or None),
        "load_ms": _ms(timings.load) if timings else None,
        "first_token_ms": _ms(record.first_token),
        "tokens_per_second": None if record.tokens_per_second is None else round(record.tokens_per_second, 1),
    }
    logger = structlog.get_logger("switchyard")
    line = logger.debug if record.path.startswith(QUIET) else logger.info
    line(
        "request",
        method=record.method,
        path=record.path,
        status=record.status,
        outcome=record.outcome,
        ms=_ms(record.seconds),
        **{name: value for name, value in fields.items() if value is not None},
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)
