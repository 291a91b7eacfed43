"""Decoding: one token for every running row of a model per step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from app.engine.base import FinishReason, Token
from app.engine.mlx.kv import KV
from app.engine.mlx.logprobs import RowScores
from app.engine.mlx.rows import ROW_FAILED, Row
from app.engine.mlx.sampling import Sampler
from app.errors import EngineFailed, SwitchyardError

Report = Callable[[Row, Token], None]
Fail = Callable[[Row, SwitchyardError], None]


class _Step:
    """One step on its way: the rows it was for and their tokens, not yet read."""

    def __init__(self, rows: list[Row], tokens: mx.array, scores: RowScores) -> None:
        self.rows = rows
        self.tokens = tokens
        self.scores = scores


class DecodeBatch:
    """Rows that share one KV cache. MLX thread only.

    The device is kept one step ahead: step N+1 is queued before step N's tokens are read, so that reading, reporting
    and the event loop's work all happen while it computes. A row that ends with a stop token has therefore been
    computed once too often, which is dropped; one that ends by length has not. A batch whose draws need the tokens
    before reads them between the two: the forward pass is queued, and while it computes they are read and reported and
    what guided rows may say next is worked out.
    """

    def __init__(self, model: Any, report: Report, fail: Fail) -> None:
        self._model = model
        self._report = report
        self._fail = fail
        self._rows: list[Row] = []
        self._kv: KV | None = None
        self._inputs: mx.array | None = None
        self._sampler: Sampler | None = None
        self._ahead: _Step | None = None

    @property
    def rows(self) -> int:
        """Rows that hold a place."""
        return len(self._rows)

    @property
    def unfinished(self) -> set[Row]:
        """Rows whose last token is not reported yet."""
        return {row for row in self._rows + (self._ahead.rows if self._ahead else []) if not row.done}

    @property
    def busy(self) -> bool:
        """Whether a step or a read is still owed."""
        return bool(self._rows) or self._ahead is not None

    @property
    def kv_bytes(self) -> int:
        """Bytes of KV cache held."""
        return self._kv.nbytes if self._kv is not None else 0

    def join(self, rows: list[Row], kv: KV, inputs: list[int]) -> None:
        """Add rows whose prompts are in ``kv`` but for their last token, ``inputs``."""
        added = mx.array(inputs, dtype=mx.uint32)
        sampler = Sampler(self._rows + rows, self._sampler)  # first: what fails here has changed nothing yet
        if self._kv is None or self._inputs is None:
            self._kv, self._inputs = kv, added
        else:
            self._kv, self._inputs = self._kv.join(kv), mx.concatenate([self._inputs, added])
        self._rows, self._sampler = self._rows + rows, sampler

    def abandon(self) -> set[Row]:
        """Let everything go; the rows that have not ended."""
        rows = self.unfinished
        self._rows, self._ahead = [], None
        self._kv = self._inputs = self._sampler = None
        return rows

    def step(self) -> None:
        """Queue the next token of every row, then report the tokens of the step before."""
        self._drop_finished()
        behind, self._ahead = self._ahead, None
        if self._kv is None or self._inputs is None or self._sampler is None:
            self._read(behind)
            return
        logits = self._model(self._inputs[:, None], cache=self._kv.layers)[:, -1].astype(mx.float32)
        if self._sampler.in_step:
            mx.async_eval(logits)
            self._read(behind)
            self._queue(logits, self._sampler.draw(logits))
            if self._sampler.on_host:  # drawn already: told at once, and who has ended is not computed again
                behind, self._ahead = self._ahead, None
                self._read(behind)
        else:
            self._queue(logits, self._sampler.draw(logits))
            self._read(behind)

    def _queue(self, logits: mx.array, tokens: mx.array) -> None:
        scores = RowScores(self._rows, logits, tokens)
        mx.async_eval(tokens, *scores.arrays)
        self._ahead = _Step(self._rows, tokens, scores)
        self._inputs = tokens
        for row in self._rows:
            row.queued += 1

    def _read(self, step: _Step | None) -> None:
        """Report what ``step`` made; waits for the device."""
        if step is None:
            return
        tokens: list[int] = step.tokens.tolist()
        scores = step.scores.read()
        for i, (row, token) in enumerate(zip(step.rows, tokens, strict=True)):
            if row.done or row.cancelled:
                continue
            failure = _advance(row, token)
            if failure is not None:
                row.done = True
                self._fail(row, failure)
                continue
            row.reported += 1
            finish = _finish(row, token)
            row.done = finish is not None
            logprob, top = scores.get(i, (None, ()))
            self._report(row, Token(row.sequence, row.index, token, logprob, top, finish))

    def _drop_finished(self) -> None:
        keep = [i for i, row in enumerate(self._rows) if not row.over]
        if len(keep) == len(self._rows):
            return
        self._rows = [self._rows[i] for i in keep]
        if not keep or self._kv is None or self._inputs is None:
            self._kv = self._inputs = self._sampler = None
            return
        self._kv = self._kv.row(keep[0]) if len(keep) == 1 and self._kv.merged else self._kv.select(keep)
        self._inputs = self._inputs[mx.array(keep)]
        self._sampler = Sampler(self._rows, self._sampler)


def _advance(row: Row, token: int) -> SwitchyardError | None:
    """Tell the row's guide its token; what is wrong with this row alone, if anything is."""
    if row.failure is not None or row.guide is None:
        return row.failure
    try:
        row.guide.advance(token)
    except Exception:
        logging.getLogger(__name__).exception("a grammar failed")
        return EngineFailed("What holds this answer to its form has failed; send it again.", code=ROW_FAILED)
    return row.guide.failure


def _finish(row: Row, token: int) -> FinishReason | None:
    if token in row.request.stop_ids or (row.guide is not None and row.guide.complete):
        return "stop"
    return "length" if row.reported >= row.request.max_tokens else None
