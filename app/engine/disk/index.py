"""Which files of a model are there: found by name, or by the ids that follow a beginning, without a look at all."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from threading import Lock
from typing import NamedTuple

from app.engine.disk.form import Facts, Kind


class Entry(NamedTuple):
    """A file that is there: what it says of itself, and its size."""

    facts: Facts
    nbytes: int


class _Siblings:
    """The files of one kind behind one beginning: ids in the order of bytes, and how many there are of each length."""

    __slots__ = ("entries", "lengths", "order")

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.order: list[bytes] = []
        self.lengths: Counter[int] = Counter()

    def add(self, entry: Entry) -> None:
        ids = entry.facts.ids
        self.entries[ids] = entry
        insort(self.order, ids)
        self.lengths[len(ids)] += 1

    def remove(self, ids: bytes) -> None:
        del self.entries[ids]
        del self.order[bisect_left(self.order, ids)]
        self.lengths -= Counter((len(ids),))


class Index:
    """Any thread."""

    def __init__(self) -> None:
        self.nbytes = 0
        """Of all files."""
        self._entries: dict[str, Entry] = {}
        self._siblings: dict[tuple[str, Kind], _Siblings] = {}
        self._lock = Lock()

    def find(self, name: str) -> Entry | None:
        """The file of that name."""
        return self._entries.get(name)

    def near(self, parent: str, kind: Kind, ids: bytes) -> list[Entry]:
        """The files before and after ``ids`` in their order, of which one shares the longest beginning with them.

        The latter begins with all of ``ids`` if any file does.
        """
        with self._lock:
            found = self._siblings.get((parent, kind))
            if found is None:
                return []
            at = bisect_left(found.order, ids)
            return [found.entries[it] for it in found.order[max(0, at - 1) : at + 1]]

    def beginnings(self, parent: str, kind: Kind, ids: bytes) -> list[Entry]:
        """The files whose ids ``ids`` begin with, or are, the shortest first."""
        with self._lock:
            found = self._siblings.get((parent, kind))
            if found is None:
                return []
            made = (found.entries.get(ids[:length]) for length in sorted(found.lengths) if length <= len(ids))
            return [it for it in made if it is not None]

    def add(self, entry: Entry) -> None:
        """It is there."""
        facts = entry.facts
        with self._lock:
            if facts.name not in self._entries:
                self._entries[facts.name] = entry
                self._siblings.setdefault((facts.parent, facts.kind), _Siblings()).add(entry)
                self.nbytes += entry.nbytes

    def forget(self, name: str) -> None:
        """It is not there any more."""
        with self._lock:
            entry = self._entries.pop(name, None)
            if entry is None:
                return
            self.nbytes -= entry.nbytes
            key = entry.facts.parent, entry.facts.kind
            self._siblings[key].remove(entry.facts.ids)
            if not self._siblings[key].entries:
                del self._siblings[key]
