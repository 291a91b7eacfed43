"""What everybody sees of a request: headers on its answer, one log line, numbers and traces."""

from collections.abc import Callable

import structlog

from app.api.observe.record import Record
from app.observability import HEADER, ASGIApp, Message, Receive, Scope, Send, request_id

QUIET = ("/health", "/metrics", "/page/")
"""Asked for by machines all the time, or dozens together by every visit of the page: logged at debug."""

Told = Callable[[Record], None]


def observed(app: ASGIApp, *tell: Told) -> ASGIApp:
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
            record.seconds = record.now()
            _log(record)
            for it in tell:
                it(record)

    return observe


def _headers(record: Record) -> list[tuple[bytes, bytes]]:
    """The answer's own; ``server-timing`` has what is known when it begins, all of it only for whole answers."""
    told = [(HEADER, record.id.encode()), (b"openai-processing-ms", b"%d" % (1000 * record.now()))]
    timings = record.timings
    if timings is not None:
        parts = {"queue": timings.queue, "load": timings.load}
        if timings.prefill or timings.decode:
            parts |= {"prefill": timings.prefill, "decode": timings.decode}
        text = ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in parts.items())
        told.append((b"server-timing", text.encode()))
    return told


def _log(record: Record) -> None:
    timings = record.timings
    told = {
        "key": record.key,
        "model": record.model,
        "error": record.error,
        "prompt_tokens": record.prompt_tokens if timings else None,
        "completion_tokens": record.completion_tokens if timings else None,
        "queue_ms": _ms(timings.queue) if timings else None,
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
        **{name: value for name, value in told.items() if value is not None},
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)
