"""``python -m app.engine.host.follow SETUP``: a rank of a model that is not rank 0. Started by the service, or by ssh.

It reads its :class:`app.engine.ranks.Seat` from its standard input, which is closed when the service is gone.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
import threading

import msgspec

from app.engine.host.confine import confine, end_with
from app.engine.host.logs import configure_late
from app.engine.host.setup import Setup
from app.engine.ranks import FAILED, FROZEN, GONE, Seat, prepare

DOOR_SECONDS = 30.0
log = logging.getLogger(__name__)


def main() -> None:
    """Repeat what rank 0 does until it ends."""
    setup = msgspec.json.decode(sys.argv[1], type=Setup)
    end_with(setup.parent)
    configure_late(setup.log_level, setup.log_format)
    seat = msgspec.json.decode(sys.stdin.buffer.readline(), type=Seat)
    if setup.confined:
        confine(setup.folders, setup.ports, network=setup.network)
    prepare(seat)
    threading.Thread(target=_watch_service, name="service", daemon=True).start()
    try:
        _follow(seat)
    except BaseException:
        log.exception("%s ends", seat.names[seat.rank])
        os._exit(FAILED)


def _watch_service() -> None:
    """The end of the standard input is the service's."""
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)


def _follow(seat: Seat) -> None:
    import mlx.core as mx  # noqa: PLC0415  once the process is confined, and knows its device
    import psutil  # noqa: PLC0415

    from app.engine.host.imports import import_parts  # noqa: PLC0415
    from app.engine.mlx.ranks.follower import Follower  # noqa: PLC0415
    from app.engine.mlx.ranks.group import versions  # noqa: PLC0415
    from app.engine.mlx.ranks.link import Link, knock, still_running  # noqa: PLC0415
    from app.engine.mlx.ranks.operations import Beat, Failed, ToFollower, Watch, framed  # noqa: PLC0415

    parts = import_parts()()
    if isinstance(seat.door, int):
        raise TypeError("Rank 0 alone inherits its door.")
    sock = socket.create_connection(seat.door, timeout=DOOR_SECONDS)
    knock(sock, seat.rank, bytes.fromhex(seat.secret), versions())
    decoder: msgspec.msgpack.Decoder[ToFollower] = msgspec.msgpack.Decoder(ToFollower)
    messages: queue.SimpleQueue[ToFollower] = queue.SimpleQueue()
    process = psutil.Process()

    def beat() -> bytes:
        still_running(link.silence)
        resident = int(process.memory_info().rss)
        return framed(Beat(process.pid, resident, int(mx.get_active_memory()), int(mx.get_cache_memory())))

    def lost(silent: bool) -> None:
        os._exit(FROZEN if silent else GONE)

    def take(body: bytes) -> None:
        message = decoder.decode(body)
        if isinstance(message, Watch):
            link.watch(message.silence)
        messages.put(message)

    link = Link(sock, take, beat, lost)
    link.pid = seat.leader
    link.start()
    try:
        Follower(seat, parts, lambda message: link.send(framed(message))).run(messages)
    except Exception as failure:
        link.send(framed(Failed(f"{type(failure).__name__}: {failure!s:.300}")))
        raise


if __name__ == "__main__":
    main()
