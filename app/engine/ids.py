"""Token ids as they travel and are compared: four bytes each.

A conversation of 40,000 tokens passes between service and engine with every request, and to make Python's numbers of
its ids takes two milliseconds each time.
"""

from array import array
from collections.abc import Sequence

Ids = Sequence[int]
WIDTH = 4
"""Bytes of an id."""


def pack(ids: Ids) -> bytes:
    """Comparing two packed sequences is comparing bytes. Raises OverflowError for what is no id of any model."""
    return ids.tobytes() if isinstance(ids, memoryview) else array("I", ids).tobytes()


def unpacked(packed: bytes) -> Ids:
    """The same ids, each made a number when somebody looks at it."""
    return memoryview(packed).cast("I")


def common(a: bytes, b: bytes) -> int:
    """How many tokens two packed sequences have in common at their beginnings."""
    size = min(len(a), len(b))
    if a[:size] == b[:size]:
        return size // WIDTH
    different = int.from_bytes(a[:size], "little") ^ int.from_bytes(b[:size], "little")
    return ((different & -different).bit_length() - 1) // (8 * WIDTH)


def within(part: bytes, packed: bytes, end: int) -> bool:
    """Whether the ids of ``part`` stand among those of ``packed`` before its byte ``end``."""
    at = packed.find(part, 0, end)
    while at >= 0 and at % WIDTH:
        at = packed.find(part, at + 1, end)
    return at >= 0
