"""What is kept in memory is written to disk ahead: when its model comes to rest, and before memory lets go of it.

Bytes are taken on the MLX thread, files are written on a thread of their own. Nobody polls: one file is written after
the other once a model has rested for a moment and for as long as it does, the latest sequences first; where memory is
about to let go of something, the oldest are written between steps, too.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from app.engine.disk.form import Facts, File, Tensor
from app.engine.disk.store import DiskStore
from app.engine.mlx.cache.pieces import Pieces
from app.engine.mlx.cache.prefix import PrefixCache

NEWEST = 64
"""Sequences that wait to be written; of more the latest are."""
QUIET = 0.25
"""Seconds of rest before anything is written: an agent's next turn often comes sooner, and would wait for it. What
memory is about to let go of is written at once.
"""
BETWEEN = 20
"""Of the time of a model that works, one part in so many may go into taking what is written meanwhile."""

AT_ONCE = 4 << 20
"""Bytes after which no further file is taken in the same go: the first waits for what the device computes just then."""

log = logging.getLogger(__name__)


class Threads:
    """One for writing and one for reading, however many tiers a model has."""

    def __init__(self) -> None:
        self.writer = ThreadPoolExecutor(1, "disk-writer")
        self.reader = ThreadPoolExecutor(1, "disk-reader")
        self.due = 0.0
        """When something may be taken although the model works."""

    def close(self) -> None:
        """Begin nothing any more. Any thread."""
        for pool in (self.writer, self.reader):
            pool.shutdown(wait=False, cancel_futures=True)


class WriteAhead:
    """One model's. MLX thread only, but for what says otherwise.

    ``post`` has something run on the MLX thread, ``later`` in so many seconds; ``busy`` says whether the model has
    anything to do.
    """

    def __init__(
        self,
        store: DiskStore,
        prefixes: PrefixCache,
        pieces: Pieces,
        *,
        post: Callable[[Callable[[], None]], None],
        later: Callable[[float, Callable[[], None]], None],
        busy: Callable[[], bool],
        threads: Threads,
    ) -> None:
        self._store = store
        self._prefixes = prefixes
        self._pieces = pieces
        self._post = post
        self._later = later
        self._busy = busy
        self._pending: OrderedDict[bytes, None] = OrderedDict()
        self._open = self._waiting = self._writing = False
        self._written: set[str] = set()
        """Of the sequence that is being written: none is written twice, whatever makes room for what."""
        self._settled: list[Callable[[], None]] = []
        self._threads = threads

    def open(self) -> None:
        """It is known what is on disk."""
        self._open = True
        self.rest()

    def drop(self, names: Sequence[str]) -> None:
        """Let files go, in time."""
        self._threads.writer.submit(self._store.drop, names)

    def note(self, packed: bytes) -> None:
        """This is kept in memory: write what of it is not on disk, when there is time."""
        for beginning in [it for it in self._pending if packed.startswith(it)]:
            del self._pending[beginning]
        self._pending[packed] = None
        self._pending.move_to_end(packed)
        if len(self._pending) > NEWEST:
            self._pending.popitem(last=False)

    def rest(self) -> None:
        """The model has nothing to do, or has done a step."""
        if self._writing:
            return
        if self._busy() or self._settled or self._prefixes.crowded:
            self._begin()
        elif self._open and self._pending and not self._waiting:
            self._waiting = True
            self._later(QUIET, self._rested)

    def settle(self, done: Callable[[], None]) -> None:
        """Call ``done`` once everything is written, or given up."""
        self._settled.append(done)
        self.rest()

    def _rested(self) -> None:
        if self._waiting:
            self._begin()

    def _begin(self) -> None:
        self._waiting, self._writing = False, True
        self._write_next()

    def _write_next(self) -> None:
        while self._open and self._pending and self._may_take():
            begun, packed = time.perf_counter(), self._next_sequence()
            taken = self._take(packed)
            self._threads.due = BETWEEN * time.perf_counter() - (BETWEEN - 1) * begun
            if taken:
                self._hand_over(partial(self._write_all, taken))
                return
            self._pending.pop(packed)
            self._written.clear()
            self._hand_over(partial(self._use, self._pieces.names(packed)), then=False)
        self._writing = False
        if not self._pending:
            settled, self._settled = self._settled, []
            for done in settled:
                done()

    def _take(self, packed: bytes) -> list[File]:
        """Copies for some of the files that a sequence lacks; none where it lacks none."""
        taken, nbytes = list[File](), 0
        try:
            for facts, tensors in self._pieces.unwritten(packed, self._written):
                self._written.add(facts.name)
                taken.append((facts, tensors))
                nbytes += sum(memoryview(tensor.data).nbytes for tensor in tensors)
                if nbytes >= AT_ONCE:
                    break
        except Exception as failure:  # noqa: BLE001  whatever it is, what is computed does not depend on it
            log.warning("a sequence is not kept on disk: %r", failure)
        return taken

    def _may_take(self) -> bool:
        return not self._busy() or (self._prefixes.crowded and time.perf_counter() >= self._threads.due)

    def _next_sequence(self) -> bytes:
        """The latest, but the oldest where that is about to be let go of."""
        return next(iter(self._pending)) if self._busy() else next(reversed(self._pending))

    def _hand_over(self, work: Callable[[], bool], *, then: bool = True) -> None:
        try:
            self._threads.writer.submit(self._run, work, then=then)
        except RuntimeError:  # closed
            self._writing = False

    def _run(self, work: Callable[[], bool], *, then: bool) -> None:
        """The writer's thread."""
        written = work()
        if then:
            self._post(partial(self._wrote, written=written))

    def _wrote(self, *, written: bool) -> None:
        if not written:  # no room, or no disk: the next rest tries again with what is kept by then
            self._pending.clear()
            self._written.clear()
        self._write_next()

    def _write_all(self, files: Sequence[File]) -> bool:
        """The writer's thread."""
        return all(self._write(facts, tensors) for facts, tensors in files)

    def _write(self, facts: Facts, tensors: list[Tensor]) -> bool:
        """The writer's thread."""
        if not self._store.write(facts, tensors):
            return False
        if facts.kind == "keys":
            shorter = self._store.index.beginnings(facts.parent, "keys", facts.ids)
            self._store.drop([it.facts.name for it in shorter if it.facts.ids != facts.ids])
        return True

    def _use(self, names: Sequence[str]) -> bool:
        """The writer's thread."""
        self._store.use([name for name in names if self._store.index.find(name) is not None])
        return True
