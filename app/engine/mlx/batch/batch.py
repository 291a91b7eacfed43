"""One model's requests on their way through the device: waiting, prefill, decode."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from functools import partial

import mlx.core as mx

from app.engine.base import Prefilled
from app.engine.mlx.batch.decode import DecodeBatch
from app.engine.mlx.batch.delivery import Delivery
from app.engine.mlx.batch.failures import Failures
from app.engine.mlx.batch.keeping import Keeper
from app.engine.mlx.batch.prompt_queue import PrefillTask, PromptQueue
from app.engine.mlx.batch.rounds import Rounds
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.cache.arrangement import alike
from app.engine.mlx.cache.classes import attend_by_class
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.ledger import Ledger
from app.engine.mlx.cache.prefix import SHORTEST, SHORTEST_ON_CUDA, PrefixCache, PrefixPool
from app.engine.mlx.device_errors import first_line, passes
from app.engine.mlx.loaded import SHORT, Loaded
from app.engine.mlx.prefill.pacing import Pace
from app.engine.mlx.rows import Row, Waiting
from app.engine.mlx.speculate.drafter import Drafter
from app.engine.work import Work
from app.errors import SwitchyardError

LONG_REST = 256
"""What a prompt lacks in the cache is computed so soon, if it is no more, that nothing need be said of it before."""

log = logging.getLogger(__name__)


class ModelBatch:
    """A worker of the MLX thread: each step is at most one prefill slice and one decode step of every row.

    ``max_rows`` bounds the rows that decode together, ``slice_tokens`` the prompt tokens between two decode steps.
    A ``drafter`` is asked while nothing else is computed.
    """

    def __init__(
        self,
        thread: MLXThread,
        loaded: Loaded,
        pool: PrefixPool,
        *,
        max_rows: int,
        slice_tokens: int,
        drafter: Drafter | None = None,
    ) -> None:
        fresh = partial(KV.fresh, loaded.model, loaded.kv_bits, loaded.abilities.mask_axes)
        self._thread = thread
        self._loaded = loaded
        if loaded.abilities.classes:
            attend_by_class(loaded.model)
        self._max_rows = max_rows
        self._pace = Pace(slice_tokens, steady=not mx.cuda.is_available())
        self._prefixes = PrefixCache(pool, fresh, SHORTEST_ON_CUDA if mx.cuda.is_available() else SHORTEST)
        self._drafter = drafter
        self._keeper = Keeper(self._prefixes)
        self._queue = PromptQueue(loaded, fresh, self._prefixes, group_tokens=slice_tokens)
        self._rounds = Rounds(self._queue)
        self._batches: list[DecodeBatch] = []
        self._shared: list[DecodeBatch] = []
        self._abilities = loaded.abilities
        self._batchable = loaded.abilities.batch and fresh().batchable
        drafts = None if drafter is None else drafter.model
        self.ledger = Ledger(loaded, drafts, rows=max_rows, slice_tokens=slice_tokens, held=self._held)
        self._failures = Failures(thread, self._forget)
        self._delivery = Delivery(thread)

    @property
    def keeps_states(self) -> bool:
        """Whether what is kept of prompts serves at some places alone."""
        return not self._prefixes.cuts

    def submit(self, sequences: list[Waiting]) -> None:
        """Queue sequences; their prompts take turns by request."""
        self._queue.add(sequences)
        self._thread.add(self)

    def work(self) -> Work:
        """What there is to do. Any thread: it reads, and may be a step late."""
        waiting = sum(task.work.left for task in self._rounds.tasks) + sum(
            len(it.request.prompt) for it in self._queue.sequences
        )
        drafted = (0, 0) if self._drafter is None else (self._drafter.proposed, self._drafter.accepted)
        return Work(sum(batch.rows for batch in self._batches), waiting, *drafted)

    def _held(self) -> int:
        """Bytes of KV cache of all rows and of what is being computed."""
        drafted = 0 if self._drafter is None else self._drafter.kv_bytes
        prompts = sum(task.work.kv.nbytes for task in tuple(self._rounds.tasks))
        return sum(batch.kv_bytes for batch in tuple(self._batches)) + prompts + drafted

    def step(self) -> bool:
        """One prefill slice, one decode step; False when every row has ended."""
        sliced = False
        self._failures.begin_step()
        try:
            sliced = self._step_prefill()
        except BaseException as failure:  # whatever is raised ends those it was raised for, a library's panic included
            if not self._tries_again(failure):
                log.exception("a prompt could not be computed")
                self._fail_prompts(self._failures.named(failure))
        self._step_decode(timed=not sliced)
        self._failures.end_step()
        self._deliver()
        return bool(self._batches or self._rounds.tasks or self._queue.sequences)

    def fail(self, failure: SwitchyardError) -> None:
        """End everything with ``failure`` and let its memory go."""
        waiting = self._queue.sequences + [it for task in self._rounds.tasks for it in task.group]
        streams = {it.stream for it in waiting} | {row.stream for batch in self._batches for row in batch.unfinished}
        self._delivery.flush()
        self._queue.clear()
        self._rounds = Rounds(self._queue)
        self._batches = []
        self._shared = []
        self._forget()
        for stream in streams:
            self._thread.notify(partial(stream.fail, failure))

    def _step_prefill(self) -> bool:
        """One slice of the prompt whose turn it is, if any waits; whether there was one."""
        free = self._max_rows - sum(batch.rows for batch in self._batches)
        self._keeper.dropped(self._rounds.tasks)
        task = self._rounds.next(free, idle=not self._batches)
        if task is None:
            return False
        if not task.announced and task.work.left > LONG_REST:
            self._delivery.found(task.group, task.cached)
        task.announced = True
        started = time.perf_counter()
        wanted = self._pace.slice(decoding=bool(self._batches) or self._thread.busy_elsewhere)
        piece = task.work.step(self.ledger.slice(wanted, task.work.kv.positions))
        self._pace.prefilled(piece, time.perf_counter() - started)
        if task.work.left:
            self._keeper.sliced(task)
        else:
            self._keeper.finished(task)
            self._finish(task)
        self._rounds.sliced()
        return True

    def _tries_again(self, failure: BaseException) -> bool:
        """Whether the prompts are computed once more, in shorter slices: what was computed of them is given up."""
        task = self._rounds.current
        if task is None or not passes(failure) or any(waiting.tried for waiting in task.group):
            return False
        log.warning("a slice of a prompt is computed again: %s", first_line(failure))
        self._rounds.failed()
        self._pace.gave_up()
        for waiting in task.group:
            waiting.tried = True
        self._queue.return_(task.group)
        return True

    def _fail_prompts(self, failure: SwitchyardError) -> None:
        """End those whose prompts were being computed; if nobody can say who they are, everybody of this model."""
        task = self._rounds.failed()
        if task is None or not task.group:
            self.fail(failure)
            return
        for waiting in task.group:
            self._end(waiting.rows, failure)

    def _step_decode(self, *, timed: bool) -> None:
        """One token for every row; a batch that fails ends its own rows."""
        started = time.perf_counter()
        alone = len(self._batches) == 1 and not self._rounds.tasks and not self._queue.sequences
        drafter, plain = self._drafter if alone else None, True
        for batch in self._batches:
            try:
                plain = batch.step(drafter) and plain
            except BaseException as failure:
                log.exception("generation failed")
                self._end(batch.abandon(), self._failures.named(failure))
        if timed and self._batches and plain:
            self._pace.decoded(time.perf_counter() - started)
        self._batches = [batch for batch in self._batches if batch.busy]
        if self._drafter is not None:
            self._drafter.rest()

    def _end(self, rows: Iterable[Row], failure: SwitchyardError) -> None:
        """End rows, and with them what they belong to, after what was reported of them."""
        self._delivery.flush()
        streams = dict.fromkeys(row.stream for row in rows)
        for row in rows:
            row.done = True
        for stream in streams:
            self._thread.notify(partial(stream.fail, failure))

    def _forget(self) -> None:
        """Let go of what is kept for prompts to come, and of what the draft has computed."""
        self._prefixes.clear()
        if self._drafter is not None:
            self._drafter.forget()

    def _finish(self, task: PrefillTask) -> None:
        """Report the computed prompts and let their rows decode."""
        rows: list[Row] = []
        places: list[int] = []
        for i, (waiting, cached) in enumerate(zip(task.group, task.cached, strict=True)):
            event = Prefilled(waiting.index, cached, task.work.scores(), max(0.0, task.begun - waiting.asked))
            self._delivery.prefilled(waiting, event, [] if waiting.request.max_tokens else waiting.rows)
            live = [row for row in waiting.rows if not row.over]
            rows += live
            places += [i] * len(live)
        if not rows:
            return
        inputs = [row.request.prompt[-1] for row in rows]
        apart = not self._abilities.empty and len(task.group[0].request.prompt) <= SHORT
        if self._batchable and not apart:
            lengths = [len(row.request.prompt) - 1 for row in rows]
            self._shared_batch(lengths).join(rows, task.work.kv.select(places), inputs)
            return
        for row, token in zip(rows, inputs, strict=True):
            batch = self._new_batch()
            batch.join([row], task.work.kv.copy(), [token])
            self._batches.append(batch)

    def _shared_batch(self, lengths: list[int]) -> DecodeBatch:
        """A batch in which rows of ``lengths`` tokens decode together with others; without classes, with their like."""
        self._shared = [batch for batch in self._shared if batch.busy]
        for batch in self._shared:
            if self._abilities.classes or alike([*batch.lengths, *lengths]):
                return batch
        batch = self._new_batch()
        self._shared.append(batch)
        self._batches.append(batch)
        return batch

    def _new_batch(self) -> DecodeBatch:
        return DecodeBatch(self._loaded, self._delivery.token, self._fail_row, self._deliver, self._keeper.answered)

    def _deliver(self) -> None:
        """Nothing is held back while a prompt is computed or waits: a slice would come between."""
        self._delivery.deliver(stalling=bool(self._rounds.tasks or self._queue.sequences))

    def _fail_row(self, row: Row, failure: SwitchyardError) -> None:
        """End what this row belongs to; the rows of others go on."""
        self._thread.notify(partial(row.stream.fail, failure))
