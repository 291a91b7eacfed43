"""``python -m app.engine.host SETUP``: started by :mod:`app.engine.client.process`, never by hand."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import msgspec
import uvloop

from app.engine.host.confine import confine, end_with
from app.engine.host.logs import configure_late
from app.engine.host.setup import Setup
from app.engine.ranks import Seat, prepare


async def _serve(setup: Setup, seat: Seat | None) -> None:
    from app.engine.host.host import Host  # noqa: PLC0415  MLX is imported here first, once the process is confined

    loop = asyncio.get_running_loop()
    host = Host(loop, setup.batching, urgent=setup.urgent, seat=seat)
    await loop.create_unix_connection(lambda: host.channel, sock=socket.socket(fileno=setup.socket))
    await host.begin()
    await asyncio.Event().wait()


def main() -> None:
    """Run until the service closes its end of the socket."""
    setup = msgspec.json.decode(sys.argv[1], type=Setup)
    os.set_inheritable(setup.socket, False)
    end_with(setup.parent)
    configure_late(setup.log_level, setup.log_format)
    os.environ.pop("LD_PRELOAD", None)  # a compiler that this process starts needs no BLAS, nor may it read ours
    if setup.confined:
        confine(setup.folders, setup.ports, network=setup.network)
    seat = msgspec.json.decode(sys.stdin.buffer.readline(), type=Seat) if setup.ranked else None
    if seat is not None:
        prepare(seat)
    uvloop.run(_serve(setup, seat))


if __name__ == "__main__":
    main()
