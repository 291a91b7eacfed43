"""Decoding: one token for every running row of a model per step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import mlx.core as mx

from app.engine.base import Token
from app.engine.mlx.cache.arrangement import arranged, fits, placed
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.draw.logits import LogitsProcessor
from app.engine.mlx.draw.logprobs import Score
from app.engine.mlx.draw.step import DeviceStep, HostStep, Step, host_step_type, step_type
from app.engine.mlx.loaded import Loaded
from app.engine.mlx.rows import Row
from app.engine.mlx.speculate.drafter import Drafter
from app.engine.mlx.speculate.verification import Draws, verify
from app.errors import SwitchyardError

Report = Callable[[Row, Token], None]
Fail = Callable[[Row, SwitchyardError], None]
Leaves = Callable[[KV, Mapping[int, Row]], None]
Aside = Callable[[Row, KV], None]


class DecodeBatch:
    """Rows that share one KV cache. MLX thread only.

    The device is kept one step ahead. On Metal and CUDA step N+1 is queued before step N's tokens are read, so that
    reading, reporting and the event loop's work all happen while it computes; where a row is guided, the forward pass
    is queued, the tokens before are read and what may come next is worked out, and then the draw is queued. On a CPU so
    are few rows that want the likeliest token; else step N+1's graph is built while step N computes, and queued when
    N's tokens are drawn, unless the model looks at its tokens while its graph is built. A row that ends with a stop
    token has therefore been computed once too often, which is dropped; one that ends by length has not.

    Few rows may be drafted for (:mod:`app.engine.mlx.speculate`): then a step is a round of draft and verification,
    makes one token or more of each row, and nothing is queued ahead of it.

    ``report`` and ``fail`` are called for rows, ``step_done`` after all of a step, ``leaves`` with the cache and rows
    by their places in it before it lets go of them. A row that has reached what it was granted is given ``aside`` with
    its cache.
    """

    def __init__(
        self, loaded: Loaded, report: Report, fail: Fail, step_done: Callable[[], None], *, leaves: Leaves, aside: Aside
    ) -> None:
        self._model: Any = loaded.model
        self._report, self._fail, self._step_done = report, fail, step_done
        self._leaves, self._aside = leaves, aside
        self._on_host = step_type() is HostStep
        self._ahead, self._by_class = loaded.abilities.ahead, loaded.abilities.classes
        self._rows: list[Row] = []
        self._kv: KV | None = None
        self._inputs: mx.array | None = None
        self._processor: LogitsProcessor | None = None
        self._unread: list[Step] = []

    @property
    def rows(self) -> int:
        """Rows that hold a place."""
        return len(self._rows)

    @property
    def lengths(self) -> list[int]:
        """Positions that each row fills."""
        return [row.filled for row in self._rows]

    @property
    def unfinished(self) -> set[Row]:
        """Rows whose last token is not reported yet."""
        steps = (step.rows for step in self._unread)
        return {row for row in chain(self._rows, *steps) if not row.done}

    @property
    def busy(self) -> bool:
        """Whether a step or a read is still to come."""
        return bool(self._rows or self._unread)

    @property
    def kv_bytes(self) -> int:
        """Bytes of KV cache held."""
        return self._kv.nbytes if self._kv is not None else 0

    def join(self, rows: list[Row], kv: KV, logits: mx.array | None = None) -> None:
        """Add rows whose tokens are in ``kv`` but for their last; a first with ``logits`` behind that one too."""
        added, together = mx.array([row.last for row in rows], dtype=mx.uint32), [*self._rows, *rows]
        new = list(range(len(self._rows), len(together)))
        groups = kv.groups if self._kv is None else [[*range(len(self._rows)), *new]]
        if self._kv is not None and self._by_class:
            groups = placed(self._kv.groups, new, [row.filled for row in together])
        order = [row for group in groups for row in group]
        ordered = [together[row] for row in order]
        processor = LogitsProcessor(ordered, self._processor)  # first: if it fails, nothing has changed
        if self._kv is None or self._inputs is None:
            self._kv, self._inputs = kv, added
        else:
            self._kv = self._kv.join(kv, groups)
            self._inputs = mx.concatenate([self._inputs, added])[mx.array(order)]
        self._rows, self._processor = ordered, processor
        self._rearrange()
        if logits is not None:
            self._queue(logits, self._kv, self._processor)
            self._read(keep=0)

    def _rearrange(self) -> None:
        """Before some class grows, and after rows have ended: see that no row pays for another's length."""
        if self._kv is None or self._inputs is None or not self._by_class or len(self._rows) < 2:
            return
        lengths = self.lengths
        if max(self._kv.classes) > 1 and fits(self._kv.groups, lengths):
            return  # those that lie apart were drafted for, which moves them apart again
        groups = arranged(lengths)
        order = [row for group in groups for row in group]
        self._rows = [self._rows[row] for row in order]
        self._processor = LogitsProcessor(self._rows, self._processor)
        self._kv, self._inputs = self._kv.arranged(groups), self._inputs[mx.array(order)]

    def abandon(self) -> set[Row]:
        """Let everything go; the rows that have not ended."""
        rows = self.unfinished
        self._rows, self._unread = [], []
        self._kv = self._inputs = self._processor = None
        return rows

    def step(self, drafter: Drafter | None = None) -> bool:
        """Queue the next token of every row and report the tokens of the step before; whether it was one token each.

        With a ``drafter``, which is for a batch that has nothing beside it, rows may make several at once.
        """
        self._let_go([i for i, row in enumerate(self._rows) if row.held])
        if drafter is None or not self._rows or not drafter.suits(self._rows):
            self._decode()
            return True
        if drafter.ready(self._rows) and self._speculate(drafter):
            return False
        rows, started = self._rows, drafter.clock()
        steady = bool(self._unread) and all(row.said for row in rows)
        self._decode()
        if steady:
            drafter.stepped(rows, drafter.clock() - started)
        drafter.catch_up(rows)
        return True

    def _decode(self) -> None:
        if self._kv is None or self._inputs is None or self._processor is None:
            self._read(keep=0)
            return
        if self._kv.grows:
            self._rearrange()
        if self._on_host and not (self._ahead and all(row.said for row in self._rows)):
            self._read(keep=0)  # a first token does not wait for the next step's graph
        logits = self._model(self._inputs[:, None], cache=self._kv.layers)[:, -1].astype(mx.float32)
        self._queue(logits, self._kv, self._processor)
        self._read(keep=1)

    def _queue(self, logits: mx.array, kv: KV, processor: LogitsProcessor) -> None:
        """Draw every row's next token of ``logits``, ``[rows, vocabulary]``."""
        processed = processor.process(logits)
        kind = host_step_type(self._rows, logits, len(kv.layers)) if self._on_host else DeviceStep
        guided = any(row.guide is not None for row in self._rows)
        if guided and not self._on_host:
            mx.async_eval(processed)
        if guided or not all(step.in_graph for step in self._unread):
            self._read(keep=0)
        self._unread.append(kind(self._rows, logits, processed))
        self._inputs = self._unread[-1].tokens
        processor.count(self._inputs)
        for row in self._rows:
            row.queued += 1

    def _read(self, *, keep: int) -> None:
        """Wait for all steps but the last ``keep``, and report what they made."""
        while len(self._unread) > keep:
            self._report_step(self._unread[0])
            del self._unread[0]

    def _speculate(self, drafter: Drafter) -> bool:
        """Compute the logits behind every proposal at once, and draw for as long as they agree; False if there is none.

        Nothing is left to draft for where rows end with what is read first.
        """
        self._read(keep=0)
        if any(row.over for row in self._rows) or self._kv is None or self._inputs is None or self._processor is None:
            return True
        started = drafter.clock()
        proposals = drafter.propose(self._rows)
        if proposals is None:
            return False
        self._kv = self._kv.apart()
        inputs = mx.concatenate([self._inputs[:, None], proposals.tokens], axis=1)
        logits = self._model(inputs, cache=self._kv.layers).astype(mx.float32)
        draws = Draws(self._rows, logits, self._processor, on_host=self._on_host)
        outcomes = verify(draws, self._rows, proposals.known(), self._report_token)
        self._kv.take_back([inputs.shape[1] - it.made for it in outcomes])
        self._inputs = mx.array([it.token for it in outcomes], dtype=mx.uint32)
        drafter.verified(self._rows, outcomes, drafter.clock() - started)
        self._step_done()
        return True

    def _report_step(self, step: Step) -> None:
        tokens, scores = step.read()
        for i, (row, token) in enumerate(zip(step.rows, tokens, strict=True)):
            self._report_token(row, token, scores.get(i))
        self._step_done()

    def _report_token(self, row: Row, token: int, score: Score | None) -> None:
        if row.done:
            return
        if row.cancelled:
            row.said.append(token)
            return
        failure = row.advance(token)
        if failure is not None:
            row.done = True
            self._fail(row, failure)
        else:
            finish = row.say(token)
            logprob, top = score or (None, ())
            self._report(row, Token(row.sequence, row.index, token, logprob, top, finish))

    def set_aside(self, which: Callable[[Row], bool]) -> None:
        """Take rows out, whatever they were granted."""
        self._read(keep=0)
        self._let_go([i for i, row in enumerate(self._rows) if which(row) and not row.over])

    def _let_go(self, aside: list[int]) -> None:
        """Go on without the rows that have ended, and those ``aside``."""
        if aside and self._kv is not None:
            taken = [(self._rows[i], self._kv.row(i)) for i in aside]
            mx.eval([kv.arrays for _, kv in taken])
            for row, kv in taken:
                self._aside(row, kv)
        keep = [i for i, row in enumerate(self._rows) if not row.over and i not in aside]
        if len(keep) == len(self._rows):
            return
        if not keep and not aside:
            self._read(keep=0)  # first: nobody who waits for the last tokens waits for what is kept of them
        if self._kv is not None:
            self._leaves(self._kv, {i: row for i, row in enumerate(self._rows) if row.over})
        self._rows = [self._rows[i] for i in keep]
        if not keep or self._kv is None or self._inputs is None:
            self._kv = self._inputs = self._processor = None
            return
        self._kv = self._kv.row(keep[0]) if len(keep) == 1 and self._kv.merged else self._kv.select(keep)
        self._inputs = self._inputs[mx.array(keep)]
        self._processor = LogitsProcessor(self._rows, self._processor)
        self._rearrange()
