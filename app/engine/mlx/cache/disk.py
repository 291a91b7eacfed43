"""The disk tier below the prefix cache: what is kept in memory is written ahead, and read where that beats computing.

Bytes are taken and arrays made on the MLX thread, files are written and read on threads of their own, one each. Nobody
polls: what is kept is written when the model comes to rest, one file after the other for as long as it rests.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import mlx.core as mx

from app.engine.disk.form import Facts, Tensor
from app.engine.disk.store import DiskStore
from app.engine.mlx.cache.filed import cut_of, states_of
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.pieces import Pieces, Plan
from app.engine.mlx.cache.prefix import PrefixCache
from app.engine.mlx.cache.segments import Cut
from app.engine.mlx.cache.tree import PIECE, WIDTH

NEWEST = 64
"""Sequences that wait to be written; of more the latest are."""
RATE = 500e6
"""Bytes a second that reading is expected to take before any was measured."""
PER_FILE = 1e-3
"""Seconds for each file beside its bytes."""

log = logging.getLogger(__name__)


Read = tuple[Facts, list[Tensor]]
"""A file."""


class DiskTier:
    """One model's. MLX thread only, but for what says otherwise.

    ``post`` has something run on the MLX thread; ``busy`` says whether the model has anything to do.
    """

    def __init__(
        self,
        store: DiskStore,
        prefixes: PrefixCache,
        fresh: Callable[[], KV],
        *,
        post: Callable[[Callable[[], None]], None],
        busy: Callable[[], bool],
    ) -> None:
        self.store = store
        self.hits = 0
        self.spared = 0
        self._prefixes = prefixes
        self._fresh = fresh
        self._post = post
        self._busy = busy
        self._pieces = Pieces(store, prefixes)
        self._pending: OrderedDict[bytes, None] = OrderedDict()
        self._writing = False
        self._written: set[str] = set()
        """Of the sequence that is being written: none is written twice, whatever makes room for what."""
        self._settled: list[Callable[[], None]] = []
        self._asked: deque[tuple[bytes, Callable[[], None]]] = deque()
        self._reading = False
        self._open = False
        self._each = 0.0
        """Seconds that computing a token of a prompt takes; 0: not known yet."""
        self._writer = ThreadPoolExecutor(1, "disk-writer")
        self._reader = ThreadPoolExecutor(1, "disk-reader")
        prefixes.noted = self.note
        self._reader.submit(self._look)

    def computed(self, tokens: int, seconds: float) -> None:
        """So many tokens of a prompt took so long."""
        if tokens >= PIECE:
            each = seconds / tokens
            self._each = each if not self._each else 0.8 * self._each + 0.2 * each

    def close(self) -> None:
        """Begin nothing any more. Any thread."""
        for pool in (self._writer, self._reader):
            pool.shutdown(wait=False, cancel_futures=True)

    # --- writing -----------------------------------------------------------------------------------------------------

    def note(self, packed: bytes) -> None:
        """This is kept in memory: write what of it is not on disk, when there is time."""
        if self._pending and packed.startswith(last := next(reversed(self._pending))):
            del self._pending[last]
        self._pending[packed] = None
        self._pending.move_to_end(packed)
        if len(self._pending) > NEWEST:
            self._pending.popitem(last=False)

    def rest(self) -> None:
        """The model has nothing to do."""
        if not self._writing:
            self._writing = True
            self._write_next()

    def settle(self, done: Callable[[], None]) -> None:
        """Call ``done`` once everything is written, or given up."""
        self._settled.append(done)
        self.rest()

    def _write_next(self) -> None:
        while self._open and self._pending and not self._busy():
            packed = next(reversed(self._pending))
            try:
                found = next(self._pieces.unwritten(packed, self._written), None)
            except Exception as failure:  # noqa: BLE001  whatever it is, what is computed does not depend on it
                log.warning("a sequence is not kept on disk: %r", failure)
                found = None
            if found is not None:
                self._written.add(found[0].name)
                self._hand_over(partial(self._write, *found))
                return
            self._pending.pop(packed)
            self._written.clear()
            self._hand_over(partial(self._use, self._pieces.names(packed)), then=False)
        self._writing = False
        if not self._pending:
            settled, self._settled = self._settled, []
            for done in settled:
                done()

    def _hand_over(self, work: Callable[[], bool], *, then: bool = True) -> None:
        try:
            self._writer.submit(self._run, work, then=then)
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

    def _write(self, facts: Facts, tensors: list[Tensor]) -> bool:
        """The writer's thread."""
        if not self.store.write(facts, tensors):
            return False
        shorter = [it.facts for it in self.store.behind(facts.parent) if it.facts.kind == facts.kind == "keys"]
        needless = [it.name for it in shorter if len(it.ids) < len(facts.ids) and facts.ids.startswith(it.ids)]
        self.store.drop(needless)
        return True

    def _use(self, names: Sequence[str]) -> bool:
        """The writer's thread."""
        self.store.use([name for name in names if self.store.find(name) is not None])
        return True

    # --- reading -----------------------------------------------------------------------------------------------------

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
        self.rest()

    def _read_next(self) -> None:
        """One prompt after the other: what one has read the next need not."""
        while self._open and self._asked and not self._reading:
            packed, done = self._asked[0]
            if (plan := self._plan(packed)) is not None:
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
        found: list[Read] = []
        for entry in plan.files:
            tensors = self.store.read(entry)
            if tensors is None:
                break
            found.append((entry.facts, tensors))
        self._post(partial(self._arrived, found))

    def _arrived(self, found: list[Read]) -> None:
        packed, done = self._asked.popleft()
        known = self._prefixes.known(packed)
        try:
            self._adopt(packed, found)
        except Exception as failure:  # noqa: BLE001  likewise
            log.warning("what was read is of no use: %s", failure)
            self.store.counts.faults += 1
            self._writer.submit(self.store.drop, [facts.name for facts, _ in found])
        spared = self._prefixes.known(packed) - known
        if spared > 0:
            self.hits += 1
            self.spared += spared
        self._reading = False
        done()
        self._read_next()

    def _adopt(self, packed: bytes, found: Sequence[Read]) -> None:
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
