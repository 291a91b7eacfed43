"""Which bytes of a file are there. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Span = tuple[int, int]
"""From a first byte to the one after the last."""


class Spans:
    """Disjoint spans in order, none of them empty, none touching the next."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in spans:
            self.add(start, end)

    def __iter__(self) -> Iterator[Span]:
        return zip(self._starts, self._ends, strict=True)

    def add(self, start: int, end: int) -> None:
        """Have these bytes, too."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]

    def cut(self, size: int) -> None:
        """Have nothing after ``size`` bytes."""
        kept = [(start, min(end, size)) for start, end in self if start < size]
        self._starts, self._ends = [start for start, _ in kept], [end for _, end in kept]

    @property
    def prefix(self) -> int:
        """Bytes from the beginning without a hole."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    @property
    def total(self) -> int:
        """Bytes that are there."""
        return sum(self._ends) - sum(self._starts)

    def missing(self, size: int, longest: int) -> Iterator[Span]:
        """What is not there of ``size`` bytes, in order, in pieces of at most ``longest``."""
        begins = [0, *self._ends]
        ends = [*self._starts, size]
        for begin, end in zip(begins, ends, strict=True):
            for start in range(begin, min(end, size), longest):
                yield start, min(start + longest, end, size)
