"""Which of a model's decode batches its rows are in."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import mlx.core as mx

from app.engine.mlx.batch.decode import DecodeBatch
from app.engine.mlx.batch.prefill_task import PrefillTask
from app.engine.mlx.cache.arrangement import alike
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.loaded import SHORT, Abilities
from app.engine.mlx.nvrtc import on_cuda
from app.engine.mlx.prefill.prefill import UNPLANNED
from app.engine.mlx.rows import Row

COMPANY_SECONDS = 0.1


class Placement:
    """All batches of one model, those that have something to do; ``new`` makes one. MLX thread only.

    Rows decode together as far as the model's abilities allow that, which ``batchable`` says of its caches.
    """

    def __init__(self, abilities: Abilities, new: Callable[[], DecodeBatch], *, batchable: bool) -> None:
        self._abilities = abilities
        self._new = new
        self._batchable = abilities.batch and batchable
        self._shared: list[DecodeBatch] = []
        self._since: float | None = None
        self.batches: list[DecodeBatch] = []

    def waits_for(self, begun: Sequence[PrefillTask], *, more: bool) -> bool:
        """Whether prompts that are ready wait a moment for those that came with them: ``begun``, or ``more`` that wait.

        On CUDA a step of many rows takes hardly longer than one of few, and a batch's first by far the longest. They do
        not wait for long prompts, nor longer than ``COMPANY_SECONDS``, and nobody who has been told something waits.
        """
        fresh = all(row.queued == 0 for batch in self.batches for row in batch.unfinished)
        short = all(task.work.left <= UNPLANNED for task in begun)
        if not (on_cuda() and self.batches and fresh and short and (begun or more)):
            self._since = None
            return False
        now = time.perf_counter()
        self._since = now if self._since is None else self._since
        return now - self._since < COMPANY_SECONDS

    @property
    def rows(self) -> int:
        """Rows that hold a place."""
        return sum(batch.rows for batch in self.batches)

    @property
    def nbytes(self) -> int:
        """Bytes of KV cache held; any thread."""
        return sum(batch.kv_bytes for batch in tuple(self.batches))

    def place(self, rows: list[Row], kv: KV, places: list[int], logits: mx.array | None = None) -> None:
        """Let ``rows`` decode, which lie in ``kv`` at ``places`` but for their last token.

        With ``logits`` of a lone row that token lies there too, and these are what it says.
        """
        lengths = [row.filled for row in rows]
        apart = not self._abilities.empty and min(lengths) < SHORT
        if self._batchable and not apart:
            self._shared_batch(lengths).join(rows, kv.select(places), logits)
            return
        for row in rows:
            batch = self._new()
            batch.join([row], kv.copy(), logits)
            self.batches.append(batch)

    def settle(self) -> None:
        """Forget those that have nothing to do."""
        self.batches = [batch for batch in self.batches if batch.busy]

    def clear(self) -> None:
        """Forget all."""
        self.batches, self._shared = [], []

    def _shared_batch(self, lengths: list[int]) -> DecodeBatch:
        """A batch in which rows of ``lengths`` tokens decode together with others; without classes, with their like."""
        self._shared = [batch for batch in self._shared if batch.busy]
        for batch in self._shared:
            if self._abilities.classes or alike([*batch.lengths, *lengths]):
                return batch
        batch = self._new()
        self._shared.append(batch)
        self.batches.append(batch)
        return batch
