"""The disk tier below the prefix cache: what is kept in memory is written ahead, and read where that beats computing.

Arrays are made on the MLX thread, files are read on a thread of their own.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import mlx.core as mx

from app.engine.disk.form import File
from app.engine.disk.store import DiskStore
from app.engine.ids import WIDTH
from app.engine.mlx.cache.ahead import Threads, WriteAhead
from app.engine.mlx.cache.filed import cut_of, states_of
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.pieces import Pieces, Plan
from app.engine.mlx.cache.prefix import PrefixCache
from app.engine.mlx.cache.segments import Cut
from app.engine.mlx.cache.tree import PIECE

RATE = 500e6
"""Bytes a second that reading is expected to take before any was measured."""
PER_FILE = 1e-3
"""Seconds for each file beside its bytes."""

log = logging.getLogger(__name__)


class DiskTier:
    """One model's, or one owner's of a model. MLX thread only, but for what says otherwise.

    ``post`` has something run on the MLX thread, ``later`` in so many seconds; ``busy`` says whether the model has
    anything to do.
    """

    def __init__(
        self,
        store: DiskStore,
        prefixes: PrefixCache,
        fresh: Callable[[], KV],
        *,
        post: Callable[[Callable[[], None]], None],
        later: Callable[[float, Callable[[], None]], None],
        busy: Callable[[], bool],
        threads: Threads | None = None,
    ) -> None:
        self.store = store
        self.hits = 0
        self.spared = 0
        self._prefixes = prefixes
        self._fresh = fresh
        self._post = post
        self._pieces = Pieces(store, prefixes)
        self._threads = Threads() if threads is None else threads
        self._reader = self._threads.reader
        self._ahead = WriteAhead(
            store, prefixes, self._pieces, post=post, later=later, busy=busy, threads=self._threads
        )
        self._asked: deque[tuple[bytes, Callable[[], None]]] = deque()
        self._reading = False
        self._open = False
        self._each = 0.0
        """Seconds that computing a token of a prompt takes; 0: not known yet."""
        prefixes.noted = self._ahead.note
        self._reader.submit(self._look)

    def computed(self, tokens: int, seconds: float) -> None:
        """So many tokens of a prompt took so long."""
        if tokens >= PIECE:
            each = seconds / tokens
            self._each = each if not self._each else 0.8 * self._each + 0.2 * each

    def close(self) -> None:
        """Begin nothing any more. Any thread."""
        self._threads.close()

    def rest(self) -> None:
        """The model has nothing to do, or has done a step."""
        self._ahead.rest()

    def settle(self, done: Callable[[], None]) -> None:
        """Call ``done`` once everything is written, or given up."""
        self._ahead.settle(done)

    def wanted(self, packed: bytes) -> bool:
        """Whether a prompt should :meth:`fetch` before it is computed."""
        return not self._open or self._plan(packed) is not None

    def fetch(self, packed: bytes, done: Callable[[], None]) -> None:
        """Have memory hold what the disk knows of a prompt, then call ``done``, whatever has come of it."""
        self._asked.append((packed, done))
        self._read_next()

    def _look(self) -> None:
        """The reader's thread."""
        self.store.open()
        self._post(self._opened)

    def _opened(self) -> None:
        self._open = True
        self._read_next()
        self._ahead.open()

    def _read_next(self) -> None:
        """One prompt after the other: what one has read the next need not."""
        while self._open and self._asked and not self._reading:
            packed, done = self._asked[0]
            if (plan := self._plan(packed)) is not None:
                self._prefixes.touch(packed)
                try:
                    self._reader.submit(self._read, plan)
                except RuntimeError:  # closed
                    plan = None
            if plan is None:
                self._asked.popleft()
                done()
                continue
            self._reading = True

    def _read(self, plan: Plan) -> None:
        """The reader's thread."""
        found: list[File] = []
        for entry in plan.files:
            tensors = self.store.read(entry)
            if tensors is None:
                break
            found.append((entry.facts, tensors))
        self._post(partial(self._arrived, found))

    def _arrived(self, found: list[File]) -> None:
        packed, done = self._asked.popleft()
        known = self._prefixes.known(packed)
        try:
            self._adopt(packed, found)
        except Exception as failure:  # noqa: BLE001  likewise
            log.warning("what was read is of no use: %s", failure)
            self.store.counts.faults += 1
            self._ahead.drop([facts.name for facts, _ in found])
        spared = self._prefixes.known(packed) - known
        if spared > 0:
            self.hits += 1
            self.spared += spared
        self._reading = False
        done()
        self._read_next()

    def _adopt(self, packed: bytes, found: Sequence[File]) -> None:
        fresh, cuts, states = self._fresh(), list[tuple[int, Cut]](), None
        for facts, tensors in found:
            if facts.kind == "keys":
                cuts.append((facts.start, cut_of(tensors, facts.more, len(facts.ids) // WIDTH, fresh)))
            else:
                states = facts.end, states_of(tensors, facts.more, fresh)
        mx.eval([array for _, cut in cuts for array in cut.arrays], [] if states is None else states[1].state)
        if found:  # the last file may go on otherwise than the prompt does
            last = max((facts for facts, _ in found), key=lambda it: it.end)
            self._prefixes.adopt(packed[: last.start * WIDTH] + last.ids, cuts, states)

    def _plan(self, packed: bytes) -> Plan | None:
        """The files to read for a prompt, where there are any and reading them beats computing."""
        plan = self._pieces.plan(packed)
        if plan is None or plan.nbytes > self._prefixes.limit:
            return None
        spared = plan.tokens - self._prefixes.known(packed)
        return plan if spared >= self._prefixes.worth_keeping and self._beats(spared, plan) else None

    def _beats(self, tokens: int, plan: Plan) -> bool:
        counts = self.store.counts
        rate = counts.read / counts.read_seconds if counts.read_seconds > 0 else RATE
        return not self._each or plan.nbytes / rate + PER_FILE * len(plan.files) < tokens * self._each
