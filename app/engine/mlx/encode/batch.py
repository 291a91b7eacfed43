"""Texts on their way through the device, in slices that streams of other models hardly notice."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from functools import partial

import mlx.core as mx
import numpy as np

from app.engine.mlx.batch.failures import Failures
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.encode.encoders import Computer, Piece
from app.engine.work import Work
from app.errors import SwitchyardError

BUSY_SECONDS, LONE_SECONDS = 0.03, 0.25
"""How long a slice may take beside other models that compute, and while there are none."""
MOST, FEWEST = 16384, 64
"""Tokens of a slice, padding included; one text is never divided."""
PADDING = 1 / 16
"""The share of a slice that padding may be, beside what computing a few tokens more does not take longer for."""
FREE, FREE_ON_CPU = 1024, 64
"""Tokens up to which a slice takes a device as long as one text does: what it launches is what takes long."""

log = logging.getLogger(__name__)


class EncodeJob:
    """The pieces of one request, longest first, and the rows that have come of them."""

    def __init__(self, pieces: Sequence[Piece], future: asyncio.Future[list[np.ndarray]]) -> None:
        self.pieces = pieces
        self.future = future
        self.rows: list[np.ndarray | None] = [None] * len(pieces)
        self.waiting = deque(sorted(range(len(pieces)), key=lambda at: -len(pieces[at].ids)))
        self.left = len(pieces)

    @property
    def longest(self) -> int:
        """Tokens of the piece that is next; 0 once none waits."""
        return len(self.pieces[self.waiting[0]].ids) if self.waiting else 0


class EncodeBatch:
    """A worker of the MLX thread: each step is one slice of texts that are about as long, or short together."""

    def __init__(self, thread: MLXThread, computer: Computer) -> None:
        self._thread = thread
        self._computer = computer
        self._jobs: deque[EncodeJob] = deque()
        self._rate = 0.0
        """Tokens per second of the latest slice; 0 before the first."""
        self._free = FREE_ON_CPU if mx.default_device() == mx.Device(mx.cpu) else FREE
        self._failures = Failures(thread, lambda: None)

    def submit(self, job: EncodeJob) -> None:
        """Queue a request. MLX thread."""
        self._jobs.append(job)
        self._thread.add(self)

    def work(self) -> Work:
        """Texts and tokens that wait. Any thread: it reads, and may be a step late."""
        jobs = tuple(self._jobs)
        tokens = sum(len(job.pieces[at].ids) for job in jobs for at in tuple(job.waiting))
        return Work(sum(job.left for job in jobs), tokens)

    def step(self) -> bool:
        """One slice; False when nothing waits."""
        self._jobs = deque(job for job in self._jobs if not job.future.cancelled())
        taken = self._take()
        if taken:
            try:
                self._failures.begin_step()
                self._compute(taken)
                self._failures.end_step()
            except BaseException as failure:  # whatever is raised ends those it was raised for
                log.exception("texts could not be encoded")
                self._end(dict.fromkeys(job for job, _ in taken), self._failures.named(failure))
        return bool(self._jobs)

    def fail(self, failure: SwitchyardError) -> None:
        """End everything that waits."""
        self._end(dict.fromkeys(self._jobs), failure)

    def _take(self) -> list[tuple[EncodeJob, int]]:
        """The next slice: of the request whose turn it is, then of others what is about as long."""
        if not self._jobs:
            return []
        self._jobs.rotate(-1)
        jobs = [self._jobs[-1], *list(self._jobs)[:-1]]
        width = jobs[0].longest
        rows, padding = max(1, self._room() // max(1, width)), 0
        taken: list[tuple[EncodeJob, int]] = []
        for job in jobs:
            while len(taken) < rows and 0 < job.longest <= width:
                more, tokens = padding + width - job.longest, width * (len(taken) + 1)
                if tokens > self._free and more > PADDING * tokens:
                    break
                padding = more
                taken.append((job, job.waiting.popleft()))
        return taken

    def _room(self) -> int:
        """Tokens for this slice."""
        seconds = BUSY_SECONDS if self._thread.busy_elsewhere else LONE_SECONDS
        return max(FEWEST, min(MOST, int(self._rate * seconds))) if self._rate else 8 * FEWEST

    def _compute(self, taken: list[tuple[EncodeJob, int]]) -> None:
        started = time.perf_counter()
        pieces = [job.pieces[at] for job, at in taken]
        rows = np.array(self._computer.compute(pieces))
        width = max(len(piece.ids) for piece in pieces)
        self._rate = width * len(pieces) / max(1e-6, time.perf_counter() - started)
        for (job, at), row in zip(taken, rows, strict=True):
            job.rows[at] = row
            job.left -= 1
            if not job.left:
                self._jobs.remove(job)
                self._thread.notify(partial(_answer, job))

    def _end(self, jobs: dict[EncodeJob, None], failure: SwitchyardError) -> None:
        self._jobs = deque(job for job in self._jobs if job not in jobs)
        for job in jobs:
            self._thread.notify(partial(_fail, job, failure))


def _answer(job: EncodeJob) -> None:
    if not job.future.done():
        job.future.set_result([row for row in job.rows if row is not None])


def _fail(job: EncodeJob, failure: SwitchyardError) -> None:
    if not job.future.done():
        job.future.set_exception(failure)
