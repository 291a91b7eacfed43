"""What one group of rows has made since the last message, on its way to the service."""

from __future__ import annotations

from typing import Protocol

from app.engine.base import Prefilled, Token
from app.engine.facts import Failure
from app.engine.mlx.batch.stream import RowStream
from app.errors import SwitchyardError


class Outbox(Protocol):
    """Who gathers what all streams have made."""

    def put(self, number: int, items: list[Prefilled | Token], failure: Failure | None = None) -> None:
        """More of stream ``number``; with ``failure`` the last."""


class HostStream(RowStream):
    """Told to the service under its ``number``."""

    def __init__(self, number: int, outbox: Outbox) -> None:
        super().__init__()
        self._number = number
        self._outbox = outbox

    def take(self, items: list[Prefilled | Token]) -> None:
        """With everything else that the step made."""
        self._outbox.put(self._number, items)

    def fail(self, failure: SwitchyardError) -> None:
        """The stream has ended."""
        self.running.clear()
        self._outbox.put(self._number, [], Failure.of(failure))
