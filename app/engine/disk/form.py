"""The form of one file: safetensors, with a checksum of its header and of each tensor.

safetensors has none, and a file with flipped bits or a tail of zeros loads without a word. The header is JSON whose
first entry is its own CRC-32, counted with zeros in its place, so that nothing of a file is believed unchecked.
The format is that of https://github.com/huggingface/safetensors (format): eight bytes with the header's length, the
header, then the tensors without gaps.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from hashlib import blake2b
from typing import BinaryIO, Literal, NamedTuple

import msgspec
from msgspec import Struct

from app.engine.ids import WIDTH

VERSION = 1
SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4}
SIZES |= {"U64": 8, "I64": 8, "F64": 8, "C64": 8}
"""Bytes of a value, by safetensors' name of its type."""
MOST_HEADER = 1 << 20

_BEGIN = b'{"__metadata__":{"check":"'
_NONE = b"00000000"

Kind = Literal["keys", "states"]
"""What layers hold of every token, or what they held behind the last one."""


class Unusable(ValueError):
    """A file is not what it has to be."""


class Tensor(NamedTuple):
    """An array as bytes; ``dtype`` is safetensors' name of the type."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


class Facts(Struct, frozen=True):
    """What a file says of itself.

    ``ids`` are those of its tokens, four bytes each, behind the beginning that is named ``parent`` and has ``start``
    tokens; ``model`` says what computed them. ``more`` is the writer's own, who alone can read it.
    """

    model: str
    kind: Kind
    parent: str
    start: int
    ids: bytes
    more: str = ""
    version: int = VERSION

    @property
    def end(self) -> int:
        """How many tokens there are with these."""
        return self.start + len(self.ids) // WIDTH

    @property
    def name(self) -> str:
        """That of the file."""
        return f"{chained(self.parent, self.ids)}.{self.kind}"


File = tuple[Facts, list[Tensor]]
"""All that is in one."""


class _Place(Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class _Metadata(Struct, frozen=True):
    check: str
    facts: str
    crc32: str


class Header(NamedTuple):
    """A header that has been checked: what the file says, where its tensors are, and how long it is."""

    facts: Facts
    places: tuple[_Place, ...]
    checks: tuple[int, ...]
    nbytes: int


def chained(parent: str, ids: bytes) -> str:
    """The name of a beginning: that of what stands before its last ``ids``, and these."""
    return blake2b(ids, key=parent.encode(), digest_size=16).hexdigest()


def written(facts: Facts, tensors: Sequence[Tensor]) -> list[bytes | memoryview]:
    """A file, in pieces that are to be written one behind the other."""
    said: dict[str, object] = {}
    at = 0
    for number, tensor in enumerate(tensors):
        said[f"{number:04}"] = _Place(tensor.dtype, tensor.shape, (at, at + len(tensor.data)))
        at += len(tensor.data)
    checks = [zlib.crc32(tensor.data) for tensor in tensors]
    metadata = _Metadata("", msgspec.json.encode(facts).decode(), msgspec.json.encode(checks).decode())
    body = msgspec.json.encode({"__metadata__": metadata} | said)
    begin = _BEGIN + _NONE
    header = begin + body[len(_BEGIN) :]
    header += b" " * (-len(header) % 8)
    length = len(header).to_bytes(8, "little")
    check = f"{zlib.crc32(header, zlib.crc32(length)):08x}".encode()
    return [length, _BEGIN, check, header[len(begin) :], *(tensor.data for tensor in tensors)]


def read_header(stream: BinaryIO, size: int) -> Header:
    """The header of a file of ``size`` bytes. Raises :class:`Unusable`; an OSError is the stream's own."""
    length = stream.read(8)
    count = int.from_bytes(length, "little")
    if len(length) < 8 or not len(_BEGIN) + len(_NONE) <= count <= min(MOST_HEADER, size - 8):
        raise Unusable("no header")
    header = stream.read(count)
    given = header[len(_BEGIN) : len(_BEGIN) + len(_NONE)]
    unsigned = _BEGIN + _NONE + header[len(_BEGIN) + len(_NONE) :]
    if len(header) < count or header[: len(_BEGIN)] != _BEGIN:
        raise Unusable("no header")
    if given != f"{zlib.crc32(unsigned, zlib.crc32(length)):08x}".encode():
        raise Unusable("the header is damaged")
    try:
        return _checked(header, size - 8 - count, size)
    except (msgspec.MsgspecError, ValueError, KeyError) as failure:
        raise Unusable(f"the header says what it cannot: {failure}") from failure


def read_tensors(stream: BinaryIO, header: Header) -> list[Tensor]:
    """The tensors behind a header that has just been read. Raises :class:`Unusable` for any that is damaged."""
    tensors = []
    for place, check in zip(header.places, header.checks, strict=True):
        begin, end = place.data_offsets
        data = stream.read(end - begin)
        if len(data) != end - begin or zlib.crc32(data) != check:
            raise Unusable("a tensor is damaged")
        tensors.append(Tensor(place.dtype, place.shape, data))
    if stream.read(1):
        raise Unusable("something stands behind the tensors")
    return tensors


def _checked(header: bytes, room: int, size: int) -> Header:
    said = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
    metadata = msgspec.json.decode(said.pop("__metadata__"), type=_Metadata)
    facts = msgspec.json.decode(metadata.facts, type=Facts)
    if facts.version != VERSION:
        raise Unusable("it is of another version")
    checks = msgspec.json.decode(metadata.crc32, type=tuple[int, ...])
    places = tuple(msgspec.json.decode(said[f"{number:04}"], type=_Place) for number in range(len(said)))
    at = 0
    for place in places:
        begin, end = place.data_offsets
        if begin != at or end - begin != math.prod(place.shape) * SIZES[place.dtype]:
            raise Unusable("its tensors do not lie side by side")
        at = end
    if at != room or len(checks) != len(places) or len(facts.ids) % WIDTH:
        raise Unusable("it is not as long as it says")
    return Header(facts, places, checks, size)
