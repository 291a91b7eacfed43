"""Prompts that wait until memory holds what the disk knows of them: those whose turn it would be to be computed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from app.engine.disk.store import DiskStore
from app.engine.mlx.batch.prompt_queue import PromptQueue
from app.engine.mlx.batch.thread import MLXThread, Worker
from app.engine.mlx.cache.ahead import Threads
from app.engine.mlx.cache.disk import DiskTier
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.prefix import Apart
from app.engine.mlx.rows import Waiting
from app.engine.work import OnDisk


class Batch(Worker, Protocol):
    """Who computes them."""

    def busy(self) -> bool:
        """Whether there is anything to step."""


class Arrivals:
    """Beside the queue; others are computed meanwhile. MLX thread only.

    Whoever comes waits in ``queue``, for which ``worker`` is stepped. The disk is looked at when a prompt's turn has
    come: what was read before that might have made room for others' by then. Without a ``store`` nobody waits here.
    """

    def __init__(
        self,
        store: DiskStore | None,
        prefixes: Apart,
        fresh: Callable[[], KV],
        thread: MLXThread,
        *,
        queue: PromptQueue,
        worker: Batch,
    ) -> None:
        self._store = None if fresh().journal is not None else store  # other ranks hold parts of what would be written
        self._prefixes = prefixes
        self._fresh = fresh
        self._thread = thread
        self._queue = queue
        queue.fetches = self._fetches
        self._worker = worker
        self._threads = Threads()
        self._tiers: dict[bytes, DiskTier] = {}
        self.waiting: list[Waiting] = []
        self._tier(b"")

    def add(self, sequences: list[Waiting]) -> None:
        """Have them wait for their turns."""
        self._queue.add(sequences)
        self._thread.add(self._worker)

    def _fetches(self, it: Waiting) -> bool:
        """Whether a prompt whose turn has come waits here, once, since the disk knows more of it than memory does."""
        tier = self._tier(it.request.owner)
        if tier is None or it.fetched or it.request.prompt_logprobs is not None or not tier.wanted(it.packed):
            return False
        it.fetched = True
        self.waiting.append(it)
        tier.fetch(it.packed, partial(self._fetched, it))
        return True

    def _tier(self, owner: bytes) -> DiskTier | None:
        """What of an owner's is on disk; None where nothing is kept there."""
        if self._store is not None and owner not in self._tiers:
            self._tiers[owner] = DiskTier(
                self._store.apart(owner),
                self._prefixes.of(owner),
                self._fresh,
                post=self._thread.post,
                later=self._thread.post_later,
                busy=self._worker.busy,
                threads=self._threads,
            )
        return self._tiers.get(owner)

    def settle(self, done: Callable[[], None]) -> None:
        """Call ``done`` once everything is written, or given up."""
        left = len(self._tiers)

        def settled() -> None:
            nonlocal left
            left -= 1
            if not left:
                done()

        for tier in self._tiers.values():
            tier.settle(settled)
        if not self._tiers:
            done()

    def close(self) -> None:
        """Read and write nothing any more. Any thread."""
        self._threads.close()

    @property
    def tokens(self) -> int:
        """Of prompts that wait here or in the queue. Any thread."""
        if not self._queue.entries and not self.waiting:
            return 0
        return sum(len(it.request.prompt) for it in (*self._queue.sequences, *self.waiting))

    @property
    def on_disk(self) -> OnDisk:
        """Any thread: plain numbers that may be a moment old."""
        if self._store is None:
            return OnDisk()
        tiers, its = tuple(self._tiers.values()), self._store.counts
        kept = {"writes": its.writes, "written": its.written, "read": its.read, "evictions": its.evictions}
        found = {"hits": sum(it.hits for it in tiers), "spared": sum(it.spared for it in tiers)}
        return OnDisk(nbytes=sum(it.store.index.nbytes for it in tiers), faults=its.faults, **kept, **found)

    def computed(self, tokens: int, seconds: float) -> None:
        """So many tokens of a prompt took so long."""
        for tier in self._tiers.values():
            tier.computed(tokens, seconds)

    def stepped(self) -> bool:
        """A step is over: whether there is more to do. What memory keeps is written where there is time."""
        for tier in self._tiers.values():
            tier.rest()
        return self._worker.busy()

    def clear(self) -> list[Waiting]:
        """Let all go; who they were."""
        waiting, self.waiting = self.waiting, []
        return waiting

    def _fetched(self, it: Waiting) -> None:
        if it in self.waiting:
            self.waiting.remove(it)
            self._queue.return_([it])
            self._thread.add(self._worker)
