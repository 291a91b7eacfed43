"""The engine's end of the socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Protocol

from app.engine.base import Item
from app.engine.facts import Failure
from app.engine.framing import Frames, framed, to_engine
from app.engine.messages import FromEngine, ToEngine
from app.engine.mlx.batch.delivery import RowStream
from app.errors import SwitchyardError


class Channel(asyncio.Protocol):
    """Whole messages in and out. The service's end closed means that the service is gone, and so is the process.

    ``held`` is called with True while the service does not read, and with False when it reads again.
    """

    def __init__(self, receive: Callable[[ToEngine], None], held: Callable[[bool], None]) -> None:
        self._receive = receive
        self._held = held
        self._frames = Frames()
        self._decoder = to_engine()
        self._transport: asyncio.Transport | None = None
        self._silent = False

    def connection_made(self, transport: Any) -> None:
        """From now on messages can be sent."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Hand on what is whole."""
        for body in self._frames.feed(data):
            self._receive(self._decoder.decode(body))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  either way there is nobody left
        """Nobody is there to be told anything."""
        os._exit(0)

    def pause_writing(self) -> None:
        """The service has not read what was sent."""
        self._held(True)

    def resume_writing(self) -> None:
        """It has."""
        self._held(False)

    def send(self, message: FromEngine) -> None:
        """Write a message; event loop only."""
        if self._transport is not None and not self._silent:
            self._transport.write(framed(message))

    def silence(self) -> None:
        """Write nothing more."""
        self._silent = True


class Outbox(Protocol):
    """Who gathers what all streams have made."""

    def put(self, number: int, items: list[Item], failure: Failure | None = None) -> None:
        """More of stream ``number``; with ``failure`` the last."""


class HostStream(RowStream):
    """Told to the service under its ``number``."""

    def __init__(self, number: int, outbox: Outbox) -> None:
        super().__init__()
        self._number = number
        self._outbox = outbox

    def take(self, items: list[Item]) -> None:
        """With everything else that the step made."""
        self._outbox.put(self._number, items)

    def fail(self, failure: SwitchyardError) -> None:
        """The stream has ended."""
        self.running.clear()
        self._outbox.put(self._number, [], Failure.of(failure))
