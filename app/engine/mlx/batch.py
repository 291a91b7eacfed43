"""One model's requests on their way through the device: waiting, prefill, decode."""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial
from typing import Any

import mlx.core as mx

from app.engine.base import Prefilled, Token
from app.engine.mlx.decode import DecodeBatch
from app.engine.mlx.kv import KV
from app.engine.mlx.prefill import Prefill, ScoringPrefill
from app.engine.mlx.rows import Row, Waiting
from app.engine.mlx.stream import MLXTokenStream
from app.engine.mlx.thread import MLXThread
from app.errors import EngineFailed, SwitchyardError, Unavailable

LONE_SLICE = 2048
"""Prompt tokens computed at once while nothing decodes."""
SLICE_SECONDS = 0.05
"""What a slice may take away from running streams."""

log = logging.getLogger(__name__)


class ModelBatch:
    """A worker of the MLX thread: each step is at most one prefill slice and one decode step of every row.

    ``max_rows`` bounds the rows that decode together, ``slice_tokens`` the prompt tokens between two decode steps.
    """

    def __init__(self, thread: MLXThread, model: Any, *, max_rows: int, slice_tokens: int) -> None:
        self._thread = thread
        self._model = model
        self._max_rows = max_rows
        self._slice_tokens = slice_tokens
        self._seconds_per_token = 0.0
        self._waiting: deque[Waiting] = deque()
        self._prefill: Prefill | ScoringPrefill | None = None
        self._batches: list[DecodeBatch] = []
        self._batchable = KV.fresh(model).batchable
        self._outgoing: dict[MLXTokenStream, tuple[list[Prefilled | Token], list[Row]]] = {}

    def submit(self, sequences: list[Waiting]) -> None:
        """Queue sequences, first come first served."""
        self._waiting += sequences
        self._thread.add(self)

    def step(self) -> bool:
        """One prefill slice, one decode step; False when every row has ended."""
        try:
            self._step_prefill()
            for batch in self._batches:
                batch.step()
            self._batches = [batch for batch in self._batches if batch.busy]
        except Exception as failure:  # whatever MLX raises ends this model's rows, not the service
            log.exception("generation failed")
            self.fail(_named(failure))
        self._flush()
        return bool(self._batches or self._waiting or self._prefill)

    def fail(self, failure: SwitchyardError) -> None:
        """End everything with ``failure`` and let its memory go."""
        streams = {waiting.stream for waiting in self._waiting}
        streams |= {waiting.stream for waiting in self._prefill.group} if self._prefill else set()
        streams |= {row.stream for batch in self._batches for row in batch.unfinished}
        self._flush()
        self._waiting.clear()
        self._prefill = None
        self._batches = []
        for stream in streams:
            self._thread.notify(partial(stream.fail, failure))

    def _step_prefill(self) -> None:
        while self._waiting and self._waiting[0].cancelled:
            self._waiting.popleft()
        if self._prefill is None and self._waiting:
            self._prefill = self._next_prefill()
        if self._prefill is None:
            return
        if all(waiting.cancelled for waiting in self._prefill.group):
            self._prefill = None
            return
        started = time.perf_counter()
        tokens = self._prefill.step(self._slice())
        if tokens:
            self._seconds_per_token = (time.perf_counter() - started) / tokens
        if not self._prefill.left:
            prefill, self._prefill = self._prefill, None
            self._start(prefill)

    def _slice(self) -> int:
        """Prompt tokens for the next slice: many while nothing decodes, else what fits into ``SLICE_SECONDS``."""
        if not self._batches:
            return LONE_SLICE
        if not self._seconds_per_token:
            return self._slice_tokens // 8
        return max(16, min(self._slice_tokens, int(SLICE_SECONDS / self._seconds_per_token)))

    def _next_prefill(self) -> Prefill | ScoringPrefill | None:
        """The prompts to compute next: the first that waits, and short ones behind it that fit beside it."""
        free = self._max_rows - sum(batch.rows for batch in self._batches)
        first = self._waiting[0]
        if len(first.rows) > free and self._batches:
            return None
        self._waiting.popleft()
        if first.request.prompt_logprobs is not None:
            return ScoringPrefill(self._model, first, first.request.prompt_logprobs)
        group, width, free = [first], len(first.request.prompt), free - len(first.rows)
        while self._batchable and self._waiting:
            other = self._waiting[0]
            width = max(width, len(other.request.prompt))
            if (
                len(other.rows) > free
                or width * (len(group) + 1) > self._slice_tokens
                or other.request.prompt_logprobs is not None
            ):
                break
            group.append(self._waiting.popleft())
            free -= len(other.rows)
        return Prefill(self._model, group, [KV.fresh(self._model) for _ in group], [0] * len(group))

    def _start(self, prefill: Prefill | ScoringPrefill) -> None:
        """Report computed prompts and let their rows decode."""
        rows: list[Row] = []
        places: list[int] = []
        for i, waiting in enumerate(prefill.group):
            event = Prefilled(waiting.index, prefill.cached[i], prefill.scores(i))
            live = [row for row in waiting.rows if not row.over]
            self._report(waiting.stream, event, [] if waiting.request.max_tokens else waiting.rows)
            rows += live
            places += [i] * len(live)
        if not rows:
            return
        inputs = [row.request.prompt[-1] for row in rows]
        if self._batchable:
            if not self._batches:
                self._batches.append(DecodeBatch(self._model, self._report_token))
            self._batches[0].join(rows, prefill.kv.select(places), inputs)
            return
        for row, token in zip(rows, inputs, strict=True):
            batch = DecodeBatch(self._model, self._report_token)
            batch.join([row], prefill.kv.copy(), [token])
            self._batches.append(batch)

    def _report_token(self, row: Row, token: Token) -> None:
        self._report(row.stream, token, [row] if token.finish else [])

    def _report(self, stream: MLXTokenStream, item: Prefilled | Token, ended: list[Row]) -> None:
        items, finished = self._outgoing.setdefault(stream, ([], []))
        items.append(item)
        finished += ended

    def _flush(self) -> None:
        if self._outgoing:
            outgoing, self._outgoing = self._outgoing, {}
            self._thread.notify(partial(_deliver, outgoing))


def _deliver(outgoing: dict[MLXTokenStream, tuple[list[Prefilled | Token], list[Row]]]) -> None:
    for stream, (items, ended) in outgoing.items():
        stream.deliver(items, ended)


def _named(failure: Exception) -> SwitchyardError:
    if isinstance(failure, MemoryError) or "memory" in str(failure).lower():
        mx.clear_cache()
        return Unavailable("The machine ran out of memory while generating; send the request again.", retry_after=1)
    return EngineFailed("Generation failed inside the engine; send the request again.")
