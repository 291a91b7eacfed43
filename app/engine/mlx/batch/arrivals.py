"""Prompts that wait until memory holds what the disk knows of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from app.engine.disk.store import DiskStore
from app.engine.mlx.batch.prompt_queue import PromptQueue
from app.engine.mlx.batch.thread import MLXThread, Worker
from app.engine.mlx.cache.disk import DiskTier
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.prefix import PrefixCache
from app.engine.mlx.rows import Waiting
from app.engine.work import OnDisk


class Batch(Worker, Protocol):
    """Who computes them."""

    def busy(self) -> bool:
        """Whether there is anything to step."""


class Arrivals:
    """Between a request and the queue; others are computed meanwhile. MLX thread only.

    ``worker`` is stepped for whom ``queue`` has taken on. Without a ``store`` nobody waits.
    """

    def __init__(
        self,
        store: DiskStore | None,
        prefixes: PrefixCache,
        fresh: Callable[[], KV],
        thread: MLXThread,
        *,
        queue: PromptQueue,
        worker: Batch,
    ) -> None:
        self.disk: DiskTier | None = None
        if store is not None and fresh().journal is None:  # other ranks hold parts of what would be written
            self.disk = DiskTier(store, prefixes, fresh, post=thread.post, busy=worker.busy)
        self._thread = thread
        self._queue = queue
        self._worker = worker
        self.waiting: list[Waiting] = []

    def add(self, sequences: list[Waiting]) -> None:
        """Take on at once whom the disk has nothing for."""
        ready = []
        for it in sequences:
            if self.disk is None or it.request.prompt_logprobs is not None or not self.disk.wanted(it.packed):
                ready.append(it)
            else:
                self.waiting.append(it)
                self.disk.fetch(it.packed, partial(self._fetched, it))
        if ready:
            self._ready(ready)

    @property
    def tokens(self) -> int:
        """Of prompts that wait here or in the queue. Any thread."""
        if not self._queue.entries and not self.waiting:
            return 0
        return sum(len(it.request.prompt) for it in (*self._queue.sequences, *self.waiting))

    @property
    def on_disk(self) -> OnDisk:
        """Any thread: plain numbers that may be a moment old."""
        if self.disk is None:
            return OnDisk()
        store, its = self.disk.store, self.disk.store.counts
        kept = {"writes": its.writes, "written": its.written, "read": its.read, "evictions": its.evictions}
        return OnDisk(nbytes=store.nbytes, hits=self.disk.hits, spared=self.disk.spared, faults=its.faults, **kept)

    def computed(self, tokens: int, seconds: float) -> None:
        """So many tokens of a prompt took so long."""
        if self.disk is not None:
            self.disk.computed(tokens, seconds)

    def stepped(self) -> bool:
        """A step is over: whether there is more to do. What memory keeps is written where there is time."""
        if self.disk is not None:
            self.disk.rest()
        return self._worker.busy()

    def clear(self) -> list[Waiting]:
        """Let all go; who they were."""
        waiting, self.waiting = self.waiting, []
        return waiting

    def _ready(self, sequences: list[Waiting]) -> None:
        self._queue.add(sequences)
        self._thread.add(self._worker)

    def _fetched(self, it: Waiting) -> None:
        if it in self.waiting:
            self.waiting.remove(it)
            self._ready([it])
