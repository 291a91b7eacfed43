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
    A rank finds its :class:`app.engine.ranks.Seat` as one line of its standard input, and may use the TCP ``ports``
    alone; with ``network`` any. ``socket`` is -1 for a rank that does not speak with the service, ``parent`` 0 for one
    on another host.
    """

    socket: int
    parent: int
    folders: Folders
    batching: Batching
    urgent: bool
    confined: bool
    log_level: str
    log_format: Literal["console", "json"]
    ranked: bool = False
    ports: tuple[int, ...] = ()
    network: bool = False
