"""What of a batch's prompts and answers is kept for prompts to come."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from app.engine.ids import WIDTH, pack
from app.engine.mlx.batch.prefill_task import PrefillTask
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.prefix import Apart
from app.engine.mlx.prefill.prefill import Prefill
from app.engine.mlx.rows import Row, Waiting

PART = 1024
"""Tokens of a prompt that are kept at once while the rest of it is computed, so that no single step copies all."""
TOGETHER = 4 << 20
"""Bytes of states that may wait until they are put into the tree together: what waits is in nobody's books."""

MISSED = 1024
"""Tokens that a prompt has and something kept has, behind the place where they part, before that is logged."""
AROUND = 12
"""Tokens on either side of that place whose text is logged, at debug level alone: it is what somebody has said."""

log = logging.getLogger(__name__)


class Keeper:
    """Keeps what has been computed, as far as it is not known. MLX thread only.

    What fails here ends nobody's request: everything that is kept is let go of instead.
    """

    def __init__(self, prefixes: Apart) -> None:
        self._apart = prefixes
        self._prefixes = prefixes.shared
        self._taken: list[KV] = []
        self.hits = 0
        """Prompts of which a beginning was known, since the load; any thread reads it."""
        self.spared = 0
        """Tokens of these beginnings."""

    def begun(self, task: PrefillTask) -> None:
        """Before the first slice of some prompts: count what is known of them, and say why not more of it is."""
        if task.announced:
            return
        task.announced = True
        for waiting, known in zip(task.group, task.cached, strict=True):
            self.hits += known > 0
            self.spared += known
            if len(waiting.request.prompt) - known >= MISSED:
                self._tell(waiting, known)

    def _tell(self, waiting: Waiting, known: int) -> None:
        ids = waiting.request.prompt
        at, behind = self._apart.of(waiting.request.owner).nearest(waiting.packed)
        if behind >= MISSED:
            log.info(
                "of a prompt of %d tokens %d are known: it differs at token %d from what is kept, which has %d more",
                *(len(ids), known, at, behind),
            )
            if waiting.spelling is not None and log.isEnabledFor(logging.DEBUG):
                log.debug("there it says %r", waiting.spelling.text(ids[max(0, at - AROUND) : at + AROUND]))
        elif at - known >= MISSED:
            log.info(
                "of a prompt of %d tokens %d are known: up to token %d it is what is kept, but no state is kept there",
                *(len(ids), known, at),
            )

    def sliced(self, task: PrefillTask) -> None:
        """A slice of some prompts was computed, of which more is to come."""
        work = task.work
        if not isinstance(work, Prefill) or not task.group:
            return
        for row in work.reached:
            states = work.kv.states(row)
            task.states.setdefault(row, []).append((task.cached[row] + work.done, states))
            self._taken.append(states)
        waiting = sum(states.nbytes for taken in task.states.values() for _, states in taken)
        if waiting > TOGETHER or work.done - task.kept >= PART:
            task.kept = work.done
            self._keep_taken(task)
            if self._prefixes.cuts and not work.kv.merged:
                self._keep(task, 0, task.cached[0] + work.done)
        self._settle(work.kv)

    def finished(self, task: PrefillTask) -> None:
        """Prompts are computed, or a beginning that several share."""
        if task.prefix:
            self._put(task.owner, pack(task.prefix), task.work.kv, 0)
        for row, (waiting, cached, stops) in enumerate(zip(task.group, task.cached, task.stops, strict=True)):
            end = len(waiting.request.prompt) - 1
            serves = self._prefixes.cuts or end in stops
            if serves and end - cached >= self._prefixes.worth_keeping:
                self._keep(task, row, end)
        self._keep_taken(task)
        self._settle(task.work.kv)

    def dropped(self, tasks: Iterable[PrefillTask]) -> None:
        """Some of these are cancelled and will have no further slice; whoever asks again goes on from there."""
        for task in tasks:
            if task.cancelled:
                self._cancelled(task)

    def _cancelled(self, task: PrefillTask) -> None:
        work = task.work
        if not isinstance(work, Prefill):
            return
        for row, (waiting, cached) in enumerate(zip(task.group, task.cached, strict=True)):
            done = min(cached + work.done, len(waiting.request.prompt) - 1)
            serves = self._prefixes.cuts or (not work.kv.merged and work.done == done - cached)
            if serves and done - cached >= self._prefixes.worth_keeping:
                self._keep(task, row, done)
        self._keep_taken(task)
        self._settle(work.kv)

    def answered(self, kv: KV, rows: Mapping[int, Row]) -> None:
        """Rows leave the batch, however they have ended but for a failure of their own; by their places in ``kv``."""
        for place, row in rows.items():
            if row.queued < self._prefixes.shortest or row.failure is not None:
                continue
            tokens = row.tokens()
            if len(tokens) >= row.filled:
                self._put(row.request.owner, pack(tokens[: row.filled]), kv, place)
        self._settle(kv)

    def _keep(self, task: PrefillTask, row: int, tokens: int, *, checkpoint: bool = True) -> None:
        waiting, taken = task.group[row], task.states.pop(row, [])
        packed = waiting.packed[: tokens * WIDTH]
        self._put(waiting.request.owner, packed, task.work.kv, row, taken, checkpoint=checkpoint)

    def _keep_taken(self, task: PrefillTask) -> None:
        """The states that were taken on the way, with all before the last of them."""
        for row, taken in tuple(task.states.items()):
            self._keep(task, row, taken[-1][0], checkpoint=False)

    def _put(
        self,
        owner: bytes,
        packed: bytes,
        kv: KV,
        row: int,
        taken: Sequence[tuple[int, KV]] = (),
        *,
        checkpoint: bool = True,
    ) -> None:
        with self._guarded():
            self._taken += self._apart.of(owner).keep(packed, kv, row, taken, checkpoint=checkpoint)

    def _settle(self, kv: KV) -> None:
        """Have all that was taken of ``kv`` computed at once, before it is written to."""
        taken, self._taken = self._taken, []
        if taken:
            with self._guarded():
                kv.settle(taken)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            log.exception("a prefix could not be kept")
            self._apart.clear()
