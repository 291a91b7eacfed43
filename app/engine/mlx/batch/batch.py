"""One model's requests on their way through the device: waiting, prefill, decode."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from functools import partial

import mlx.core as mx

from app.engine.base import Prefilled
from app.engine.disk.store import DiskStore
from app.engine.mlx.batch.arrivals import Arrivals
from app.engine.mlx.batch.aside import Aside
from app.engine.mlx.batch.decode import DecodeBatch
from app.engine.mlx.batch.delivery import Delivery, RowStream
from app.engine.mlx.batch.failures import Failures
from app.engine.mlx.batch.keeping import Keeper
from app.engine.mlx.batch.placement import Placement
from app.engine.mlx.batch.prefill_task import PrefillTask
from app.engine.mlx.batch.prompt_queue import PromptQueue
from app.engine.mlx.batch.rounds import Rounds
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.ledger import Ledger
from app.engine.mlx.cache.prefix import SHORTEST, SHORTEST_ON_CUDA, Apart, PrefixCache, PrefixPool
from app.engine.mlx.device_errors import first_line, passes
from app.engine.mlx.loaded import Loaded
from app.engine.mlx.prefill.slice_size import SliceSize
from app.engine.mlx.rows import Row, Waiting
from app.engine.mlx.speculate.drafter import Drafter
from app.engine.work import Work
from app.errors import SwitchyardError

log = logging.getLogger(__name__)


class ModelBatch:
    """A worker of the MLX thread: each step is at most one prefill slice and one decode step of every row.

    ``max_rows`` bounds the rows that decode together, ``slice_tokens`` the prompt tokens between two decode steps.
    A ``drafter`` is asked while nothing else is computed. ``store`` keeps prefixes on disk.
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
        store: DiskStore | None = None,
    ) -> None:
        fresh = partial(KV.fresh, loaded.model, loaded.kv_bits, loaded.abilities.mask_axes)
        self._thread, self._loaded, self._max_rows = thread, loaded, max_rows
        self._slice_size, self._asked = SliceSize(slice_tokens, steady=not mx.cuda.is_available()), 0
        shortest = SHORTEST_ON_CUDA if mx.cuda.is_available() else SHORTEST
        self._prefixes = Apart(lambda: PrefixCache(pool, fresh, shortest))
        self._drafter, self._keeper = drafter, Keeper(self._prefixes)
        self._queue = PromptQueue(loaded, fresh, self._prefixes, group_tokens=slice_tokens)
        self.arrivals = Arrivals(store, self._prefixes, fresh, thread, queue=self._queue, worker=self)
        self._rounds = Rounds(self._queue)
        self._placed = Placement(loaded.abilities, self._new_batch, batchable=fresh().batchable)
        self._aside = Aside(self._queue, self._rejoin, self._keeper.answered)
        drafts = None if drafter is None else drafter.model
        self.ledger = Ledger(loaded, drafts, rows=max_rows, slice_tokens=slice_tokens, held=self._held)
        self._failures, self._delivery = Failures(thread, self._forget), Delivery(thread)

    @property
    def keeps_states(self) -> bool:
        """Whether what is kept of prompts serves at some places alone."""
        return not self._prefixes.shared.cuts

    def submit(self, sequences: list[Waiting]) -> None:
        """Queue sequences; their prompts take turns by request."""
        self.arrivals.add(sequences)

    def busy(self) -> bool:
        """Whether there is anything to step."""
        return bool(self._placed.batches or self._prompts or self._aside.ready)

    @property
    def _prompts(self) -> bool:
        """Whether any are computed or could be begun."""
        return bool(self._rounds.tasks or (self._queue.entries and self._queue.waits))

    def work(self) -> Work:
        """What there is to do. Any thread: it reads, and may be a step late."""
        waiting = sum(task.work.left for task in self._rounds.tasks) + self.arrivals.tokens
        drafted = (0, 0) if self._drafter is None else (self._drafter.proposed, self._drafter.accepted)
        return Work(self._placed.rows, waiting, *drafted, self._keeper.hits, self._keeper.spared, self.arrivals.on_disk)

    def _held(self) -> int:
        """Bytes of KV cache of all rows and of what is being computed."""
        prompts = sum(task.work.kv.nbytes for task in tuple(self._rounds.tasks))
        return self._placed.nbytes + self._aside.nbytes + prompts + (self._drafter.kv_bytes if self._drafter else 0)

    @property
    def waits(self) -> bool:
        """Whether rows wait for memory; any thread."""
        return bool(self._aside)

    def go_on(self) -> None:
        """Look whether they still do."""
        self._thread.add(self)

    def put_back(self, stream: RowStream) -> None:
        """Have all rows of a request wait, without their KV caches; see :class:`Aside`."""
        self._aside.put_back(stream, self._rounds, self._placed.batches)
        self._placed.settle()
        self._delivery.flush()

    def step(self) -> bool:
        """One prefill slice, one decode step; False when every row has ended."""
        sliced = False
        self._failures.begin_step()
        if self._aside.kept:
            self._aside.step()
        try:
            sliced = self._step_prefill() if self._rounds.tasks or self._queue.entries else False
        except BaseException as failure:  # whatever is raised ends those it was raised for, a library's panic included
            if not self._tries_again(failure):
                log.exception("a prompt could not be computed")
                self._fail_prompts(self._failures.named(failure))
        if not (sliced and self._placed.waits_for(self._rounds.tasks, more=self._queue.waits)):
            self._step_decode(timed=not sliced)
        self._failures.end_step()
        self._deliver()
        return self.arrivals.stepped()

    def fail(self, failure: SwitchyardError) -> None:
        """End everything with ``failure`` and let its memory go."""
        waiting = self.arrivals.clear() + self._queue.sequences
        waiting += [it for task in self._rounds.tasks for it in task.group]
        streams = {it.stream for it in waiting} | {row.stream for row in self._aside.rows}
        streams |= {row.stream for batch in self._placed.batches for row in batch.unfinished}
        self._delivery.flush()
        self._queue.clear()
        self._rounds = Rounds(self._queue)
        self._placed.clear()
        self._aside.clear()
        self._forget()
        for stream in streams:
            self._thread.notify(partial(stream.fail, failure))

    def _step_prefill(self) -> bool:
        """One slice of the prompt whose turn it is, if any waits; whether there was one."""
        self._keeper.dropped(self._rounds.tasks)
        task = self._rounds.next(self._max_rows - self._placed.rows, idle=not self._placed.batches)
        if task is None:
            return False
        if not task.announced and task.is_long:
            self._delivery.found(task.group, task.cached)
        self._keeper.begun(task)
        started = time.perf_counter()
        wanted = self._slice_size.tokens(decoding=bool(self._placed.batches) or self._thread.busy_elsewhere)
        self._asked = self.ledger.slice(wanted, task.work.kv.positions)
        piece = task.step(self._asked, idle=not self._placed.batches)
        self._slice_size.prefilled(piece, seconds := time.perf_counter() - started)
        self.arrivals.computed(piece.tokens, seconds)
        if task.work.left:
            self._keeper.sliced(task)
        elif task.logits is None:
            self._keeper.finished(task)
            self._finish(task)
        else:
            self._finish(task)  # its first token leaves before anything is kept
            self._keeper.finished(task)
        self._rounds.sliced()
        return True

    def _tries_again(self, failure: BaseException) -> bool:
        """Whether the prompts are computed once more, in shorter slices: what was computed of them is given up."""
        task = self._rounds.current
        if task is None or not passes(failure) or task.tried:
            return False
        log.warning("a slice of a prompt is computed again: %s", first_line(failure))
        self._rounds.failed()
        self._slice_size.gave_up(self._asked)
        self._queue.return_(task.again())
        return True

    def _fail_prompts(self, failure: SwitchyardError) -> None:
        """End those whose prompts were being computed; if nobody can say who they are, everybody of this model."""
        task = self._rounds.failed()
        if task is None or not task.group:
            return self.fail(failure)
        return self._end([row for waiting in task.group for row in waiting.rows], failure)

    def _step_decode(self, *, timed: bool) -> None:
        """One token for every row; a batch that fails ends its own rows."""
        started = time.perf_counter()
        drafter, plain = None if self._prompts or len(self._placed.batches) != 1 else self._drafter, True
        for batch in self._placed.batches:
            try:
                plain = batch.step(drafter) and plain
            except BaseException as failure:
                log.exception("generation failed")
                self._end(batch.abandon(), self._failures.named(failure))
        if timed and self._placed.batches and plain:
            self._slice_size.decoded(time.perf_counter() - started)
        if not all(batch.busy for batch in self._placed.batches):
            self._placed.settle()
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
        rows, places = list[Row](), list[int]()
        for i, (waiting, cached) in enumerate(zip(task.group, task.cached, strict=True)):
            if not waiting.resumed:
                event = Prefilled(waiting.index, cached, task.work.scores(), max(0.0, task.begun - waiting.asked))
                self._delivery.prefilled(waiting, event, [] if waiting.request.max_tokens else waiting.rows)
            live = [row for row in waiting.rows if not row.over]
            rows += live
            places += [i] * len(live)
        if rows:
            self._placed.place(rows, task.work.kv, places, task.logits)

    def _rejoin(self, row: Row, kv: KV) -> None:
        """A row that was set aside goes on."""
        self._placed.place([row], kv, [0])

    def _new_batch(self) -> DecodeBatch:
        ways = self._delivery.token, lambda row, why: self._thread.notify(partial(row.stream.fail, why)), self._deliver
        return DecodeBatch(self._loaded, *ways, leaves=self._keeper.answered, aside=self._aside.take)

    def _deliver(self) -> None:
        """Nothing is held back while a prompt is computed or waits, or where no step follows that would bring it."""
        self._delivery.deliver(stalling=self._prompts or not self._placed.batches)
