"""Frames that wait to be written: one task fills it, another empties it."""

from asyncio import Event

from msgspec import Struct
from msgspec.json import Encoder

BACKLOG = 1 << 16
"""Bytes that may wait for a slow reader before :meth:`Outbox.room` holds the writer back."""


class Outbox:
    """A buffer of server-sent events that is handed over whole."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._frames = bytearray()
        self._closed = False
        self._filled = Event()
        self._emptied = Event()

    def frame(self, value: Struct) -> None:
        """Append ``value`` as one event, or nothing if it cannot be encoded."""
        mark = len(self._frames)
        self._frames += b"data: "
        try:
            self._encoder.encode_into(value, self._frames, -1)
        except BaseException:
            del self._frames[mark:]
            raise
        self.put(b"\n\n")

    def put(self, frames: bytes) -> None:
        """Append whole frames, or the end of one."""
        self._frames += frames
        self._filled.set()

    def close(self) -> None:
        """Nothing more will be appended."""
        self._closed = True
        self._filled.set()

    @property
    def full(self) -> bool:
        """Whether ``BACKLOG`` is reached."""
        return len(self._frames) >= BACKLOG

    async def room(self) -> None:
        """Return once less than ``BACKLOG`` waits."""
        while self.full:
            self._emptied.clear()
            await self._emptied.wait()

    async def take(self) -> tuple[bytes, bool]:
        """Everything that waits, and whether more may follow."""
        await self._filled.wait()
        taken = bytes(self._frames)
        self._frames.clear()
        self._emptied.set()
        if not self._closed:
            self._filled.clear()
        return taken, not self._closed
