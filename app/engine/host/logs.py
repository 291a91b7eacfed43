"""Logging of a process that most often logs nothing."""

from __future__ import annotations

import logging
from typing import Literal


def configure_late(level: str, style: Literal["console", "json"]) -> None:
    """Configure logging as :func:`app.observability.configure_logging` does, once there is something to log.

    Importing structlog takes a twentieth of a second, which a model that is loaded would wait for.
    """
    root = logging.getLogger()
    root.addHandler(_FirstRecord(level, style))
    root.setLevel(logging.getLevelNamesMapping()[level.upper()])


class _FirstRecord(logging.Handler):
    """Gives way to the handler that is meant, with the first record."""

    def __init__(self, level: str, style: Literal["console", "json"]) -> None:
        super().__init__()
        self._meant: tuple[str, Literal["console", "json"]] = level, style

    def emit(self, record: logging.LogRecord) -> None:
        """Have it logged by the other one, unless that leaves it out."""
        from app.observability import configure_logging  # noqa: PLC0415

        root = logging.getLogger()
        root.removeHandler(self)
        configure_logging(*self._meant)
        if root.isEnabledFor(record.levelno):
            root.handle(record)
