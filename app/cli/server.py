"""uvicorn, run as a part of this program: one process, its own signals, its own words."""

import asyncio
import errno
import logging
import math
import os
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from app.cli.exits import Exit, leave
from app.settings import Settings

BACKLOG = 2048
KEEP_ALIVE = 75
"""Seconds an idle connection stays open: longer than clients keep theirs, so that none is closed under a request."""


def bind(host: str, port: int) -> socket.socket:
    """A bound socket, not yet listening; ends the process with one line when the address cannot be had."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as failure:
        leave(Exit.PORT_TAKEN, f"{host} is no address of this machine ({failure.strerror}); choose another with --host")
    sock = socket.socket(family, kind, proto)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as failure:
        sock.close()
        leave(Exit.PORT_TAKEN, _why_not(failure, host, port))
    return sock


def _why_not(failure: OSError, host: str, port: int) -> str:
    match failure.errno:
        case errno.EADDRINUSE:
            return f"port {port} on {host} is in use; stop the program that has it or choose another with --port"
        case errno.EACCES:
            return f"port {port} needs privileges; choose one above 1023 with --port"
        case _:
            return f"{host} cannot be listened on ({failure.strerror}); choose another address with --host"


def _nothing() -> None:
    pass


class Service(uvicorn.Server):
    """A server that says when it is ready, stops at the first signal and ends at once at the second."""

    def __init__(
        self, config: uvicorn.Config, on_ready: Callable[[], None], on_stop: Callable[[], None], grace: float
    ) -> None:
        super().__init__(config)
        self._on_stop = on_stop
        self._on_ready = on_ready
        self._grace = grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, accept connections, then say so."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what never ends by itself, then wait for the rest."""
        self._on_stop()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  the handler's signature
        """First signal: answers in flight get their time. Second: the process ends here and now."""
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True
        line = f"\nswitchyard: stopping; running answers have {self._grace:g} s, a second signal ends them at once\n"
        os.write(sys.stderr.fileno(), line.encode())


def run(
    app: Any,
    sock: socket.socket,
    settings: Settings,
    on_ready: Callable[[], None],
    on_stop: Callable[[], None] = _nothing,
) -> None:
    """Serve ``app`` on ``sock`` until a signal comes; ends the process with one line when it cannot start."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        workers=1,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(settings.stop_grace),
        log_config=None,
        access_log=False,
        server_header=False,
    )
    chatter = logging.getLogger("uvicorn.error")
    chatter.setLevel(logging.WARNING)
    chatter.addFilter(_without_cancellations)
    service = Service(config, on_ready, on_stop, settings.stop_grace)
    try:
        service.run([sock])
    except SystemExit:
        leave(Exit.NOT_STARTED, "the service could not start; the lines above say why")
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(Exit.INTERRUPTED)


def _without_cancellations(record: logging.LogRecord) -> bool:
    """Drop the trace of an answer that was cut when its grace period ended; that it was cut is logged already."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
