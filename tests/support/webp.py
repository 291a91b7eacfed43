"""Animated WebP, as far as a film of screenshots needs it. Format: RFC 9649."""

import struct
from collections.abc import Iterator, Sequence

from msgspec import Struct

LONGEST = (1 << 24) - 1
ANIMATION, KEEP_PIXELS = 0x02, 0x02
"""Flags: of the file, that it moves; of a frame, that it replaces what is below it."""


class Frame(Struct, frozen=True):
    """A still WebP ``image`` that is put at ``x``, ``y`` (both even) of the canvas for so many milliseconds."""

    image: bytes
    x: int
    y: int
    width: int
    height: int
    milliseconds: int


def animated(frames: Sequence[Frame], width: int, height: int) -> bytes:
    """One file that shows the frames in turn, again and again."""
    body = b"WEBP"
    body += _chunk(b"VP8X", struct.pack("<I", ANIMATION) + _three(width - 1) + _three(height - 1))
    body += _chunk(b"ANIM", struct.pack("<IH", 0, 0))
    for frame in frames:
        place = _three(frame.x // 2) + _three(frame.y // 2) + _three(frame.width - 1) + _three(frame.height - 1)
        shown = _three(min(frame.milliseconds, LONGEST)) + bytes([KEEP_PIXELS])
        picture = b"".join(
            _chunk(name, data) for name, data in chunks(frame.image) if name in {b"ALPH", b"VP8 ", b"VP8L"}
        )
        body += _chunk(b"ANMF", place + shown + picture)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def chunks(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What a WebP file consists of: names and contents. Raises ValueError for another file."""
    if file[:4] != b"RIFF" or file[8:12] != b"WEBP":
        raise ValueError("no WebP file")
    at = 12
    while at + 8 <= len(file):
        (size,) = struct.unpack_from("<I", file, at + 4)
        yield file[at : at + 4], file[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _three(number: int) -> bytes:
    return struct.pack("<I", number)[:3]
