"""What the process is started with: the one argument of its command line, as JSON."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from app.engine.options import Batching


class Folders(Struct, frozen=True):
    """What the process is given: ``read`` with all below it, ``write`` likewise."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


class Setup(Struct, frozen=True):
    """``socket`` is a descriptor that the process inherits, ``parent`` the service's process id.

    ``urgent`` says that somebody waits for it already, ``confined`` that the system is to hold it to its folders.
    """

    socket: int
    parent: int
    folders: Folders
    batching: Batching
    urgent: bool
    confined: bool
    log_level: str
    log_format: Literal["console", "json"]
