"""Token ids as they travel and are compared: four bytes each.

A conversation of 40,000 tokens passes between service and engine with every request, and to make Python's numbers of
its ids takes two milliseconds each time.
"""

from array import array
from collections.abc import Sequence

Ids = Sequence[int]


def pack(ids: Ids) -> bytes:
    """Comparing two packed sequences is comparing bytes. Raises OverflowError for what is no id of any model."""
    return ids.tobytes() if isinstance(ids, memoryview) else array("I", ids).tobytes()


def unpacked(packed: bytes) -> Ids:
    """The same ids, each made a number when somebody looks at it."""
    return memoryview(packed).cast("I")
