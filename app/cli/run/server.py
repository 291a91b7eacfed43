"""uvicorn, run as a part of this program: one process, its own signals, its own words."""

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from types import FrameType
from typing import Any

import uvicorn
from msgspec import Struct

from app.cli.exits import Exit, leave
from app.cli.run.listen import BACKLOG
from app.cli.run.protocol import LimitedProtocol, Limits
from app.settings import Settings

LAST_WORDS = 2.0
"""Seconds in which answers that were ended write their error, at the least."""


def _nothing() -> None:
    pass


async def _nobody(_grace: float) -> None:
    pass


class Hooks(Struct, frozen=True):
    """What is called when: the service is ready, is told to read its files again (SIGHUP), is told to stop.

    ``on_stop`` ends what never ends by itself; ``drain`` returns when no answer runs any more, after ``grace``
    seconds at the latest.
    """

    on_ready: Callable[[], None] = _nothing
    on_hangup: Callable[[], None] = _nothing
    on_stop: Callable[[], None] = _nothing
    drain: Callable[[float], Awaitable[None]] = _nobody


class Service(uvicorn.Server):
    """A server that says when it is ready, stops at the first signal and ends at once at the second."""

    def __init__(self, config: uvicorn.Config, hooks: Hooks, grace: float) -> None:
        super().__init__(config)
        self._hooks = hooks
        self._grace = grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, accept connections, then say so."""
        await super().startup(sockets)
        if not self.started:
            return
        if not os.isatty(0):  # in a terminal a hangup means that the terminal is gone
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hooks.on_hangup)
        gc.freeze()  # to look through what stays for good would hold all streams for 60 ms every so often
        self._hooks.on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse what is new while what runs is finished, then close."""
        began = monotonic()
        self._hooks.on_stop()
        await self._hooks.drain(self._grace)
        left = self._grace - (monotonic() - began)
        self.config.timeout_graceful_shutdown = math.ceil(max(LAST_WORDS, left))
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  the handler's signature
        """First signal: answers in flight get their time. Second: the process ends here and now."""
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True
        _say(f"stopping; running answers have {self._grace:g} s, a second signal ends them at once")


def leave_at_once() -> None:
    """End a process in which everything is closed, without taking the interpreter down piece by piece.

    The libraries below have threads of their own that nobody can join; a process that unloads them while one of them
    still runs is aborted by the C++ runtime.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(Exit.DONE)


def _say(line: str) -> None:
    os.write(sys.stderr.fileno(), f"\nswitchyard: {line}\n".encode())


def run(app: Any, socks: list[socket.socket], settings: Settings, hooks: Hooks) -> None:
    """Serve ``app`` on ``socks`` until a signal comes; ends the process with one line when it cannot start."""
    protocol: Any = partial(LimitedProtocol, Limits.of(settings))  # called as the class would be
    config = uvicorn.Config(
        app,
        loop="app.cli.run.awake_loop:AwakeLoop" if sys.platform == "darwin" else "uvloop",
        http=protocol,
        ws="none",
        lifespan="on",
        workers=1,
        backlog=BACKLOG,
        timeout_keep_alive=math.ceil(settings.idle_timeout),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
    chatter = logging.getLogger("uvicorn.error")
    chatter.setLevel(logging.WARNING)
    chatter.addFilter(_without_cancellations)
    try:
        config.load()
    except (ssl.SSLError, OSError):
        leave(Exit.USAGE, "tls_certificate and tls_key are no certificate and its key in PEM format")
    try:
        Service(config, hooks, settings.stop_grace).run(socks)
    except SystemExit:
        leave(Exit.NOT_STARTED, "the service could not start; the lines above say why")
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(Exit.INTERRUPTED)


def _without_cancellations(record: logging.LogRecord) -> bool:
    """Drop the trace of an answer that was cut when its grace period ended; that it was cut is logged already."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
