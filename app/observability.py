"""Logging, and the id that joins a request's answer with its log lines."""

import logging
import re
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal, TextIO
from uuid import uuid4

import msgspec
import structlog

HEADER = b"x-request-id"
VALID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
ASGIApp = Callable[[Any, Receive, Send], Awaitable[None]]


def configure_logging(level: str, style: Literal["console", "json"], stream: TextIO = sys.stderr) -> None:
    """Log lines for people (``console``) or machines (``json``), at ``level`` and above, structlog's and logging's."""
    severity = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
        if style == "json"
        else [
            # the default shows the values of local variables, which may be prompts and keys, and takes a second for it
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    root = logging.getLogger()
    for old in [it for it in root.handlers if isinstance(it.formatter, structlog.stdlib.ProcessorFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(severity if severity < logging.INFO else max(severity, logging.WARNING))  # libraries chat at INFO


def request_id(scope: Any) -> str:
    """The request's id: the client's own where it is a plain word, else a new one; the same for the whole request."""
    state: dict[str, Any] = scope.setdefault("state", {})
    if "request_id" not in state:
        sent = next((value for name, value in scope["headers"] if name == HEADER), b"")
        state["request_id"] = sent.decode() if VALID.fullmatch(sent) else uuid4().hex
    return str(state["request_id"])


def _json(value: Any, **_options: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
