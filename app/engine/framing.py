"""Messages as bytes: a length (4 bytes, big endian), then msgpack."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from app.engine.base import Sequence
from app.engine.ids import pack, unpacked
from app.engine.messages import FromEngine, Generate, ToEngine

MOST = 256 << 20
"""Bytes of one message; whoever says that more will come is not understood."""

_ENCODER = msgspec.msgpack.Encoder(enc_hook=str)
"""Paths travel as texts."""


def to_engine() -> "msgspec.msgpack.Decoder[ToEngine]":
    """What the engine reads with."""
    return msgspec.msgpack.Decoder(ToEngine, dec_hook=_path)


def from_engine() -> "msgspec.msgpack.Decoder[FromEngine]":
    """What the service reads with."""
    return msgspec.msgpack.Decoder(FromEngine)


def _path(kind: type, value: object) -> Path:
    if kind is not Path or not isinstance(value, str):
        raise NotImplementedError(kind)
    return Path(value)


def framed(message: ToEngine | FromEngine) -> bytes:
    """A message as it is written."""
    body = _ENCODER.encode(message)
    return len(body).to_bytes(4, "big") + body


def packed(value: object) -> Raw:
    """The value of an :class:`Answer`."""
    return Raw(_ENCODER.encode(value))


def generation(stream: int, engine: int, sequences: tuple[Sequence, ...]) -> Generate:
    """The message that queues sequences, with their prompts packed (:mod:`app.engine.ids`)."""
    prompts = tuple(pack(it.prompt) for it in sequences)
    return Generate(stream, engine, tuple(replace(it, prompt=()) for it in sequences), prompts)


def sequences_of(message: Generate) -> tuple[Sequence, ...]:
    """Whole again."""
    both = zip(message.sequences, message.prompts, strict=True)
    return tuple(replace(it, prompt=unpacked(prompt)) for it, prompt in both)


class Frames:
    """Takes bytes as they come and gives whole messages' bodies. Raises ValueError for one that is too large."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that ``data`` completes."""
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= 4:
            size = int.from_bytes(buffer[at : at + 4], "big")
            if size > MOST:
                raise ValueError(f"a message of {size} bytes")
            if len(buffer) - at - 4 < size:
                break
            yield bytes(buffer[at + 4 : at + 4 + size])
            at += 4 + size
        del buffer[:at]
