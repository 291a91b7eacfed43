"""Speculative decoding: a draft model proposes tokens of a lone row, which the target verifies in one forward pass.

A proposal is kept only while it equals what the target draws at its place, so the draft has a say in the speed alone,
never in the text. It draws with the random numbers that the target will draw with, from its own distribution: the more
the two distributions are alike, the more often they then draw the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import mlx.core as mx
from msgspec.structs import replace

from app.engine.ids import pack
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.prefix import Apart, PrefixCache, PrefixPool
from app.engine.mlx.draw.step import HostStep, step_type
from app.engine.mlx.loaded import Loaded
from app.engine.mlx.prefill.prefill import Prefill
from app.engine.mlx.prefill.slice_size import SliceSize
from app.engine.mlx.rows import Row
from app.engine.mlx.speculate.draft import Draft, check_pair, check_trimmable
from app.engine.mlx.speculate.drafter import MOST, Drafter, Outcome, Proposals, Worth
from app.engine.mlx.speculate.lookup import MOST_ROWS, Lookup
from app.engine.options import PROMPT_LOOKUP


def drafter_for(
    loaded: Loaded, draft: Draft | None, pool: PrefixPool, slice_tokens: int, *, lookup: bool
) -> Drafter | None:
    """What proposes tokens to ``loaded``: a draft, its own texts or nobody.

    Raises :class:`app.engine.mlx.speculate.draft.DraftRefused` for a model that it does not suit.
    """
    if draft is not None:
        check_pair(loaded, draft)
        return Speculation(draft, pool, slice_tokens=slice_tokens)
    if not lookup:
        return None
    check_trimmable(loaded, PROMPT_LOOKUP)
    return Lookup(most_rows=MOST_ROWS if loaded.abilities.classes else 1)


class Speculation:
    """One model's draft and its KV cache, which holds the beginning of one row at a time. MLX thread only.

    ``proposed`` and ``accepted`` count tokens since the load and may be read anywhere. ``pool`` keeps the
    draft's caches of rows that have ended. ``clock`` is in seconds.
    """

    def __init__(
        self,
        draft: Draft,
        pool: PrefixPool,
        *,
        slice_tokens: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.proposed = 0
        self.accepted = 0
        self.clock = clock
        self._draft = draft
        fresh = partial(KV.fresh, draft.loaded.model, draft.loaded.kv_bits)
        self._prefixes = Apart(lambda: PrefixCache(pool, fresh))
        self._slice_size = SliceSize(slice_tokens, steady=True)
        self._step = step_type()
        self._plain_seconds = 0.0
        self._row: Row | None = None
        self._shadow: Row | None = None
        self._kv: KV | None = None
        self._found = 0
        self._seen = self._aim = 0
        self._work: Prefill | None = None
        self._sliced = False
        self._worth = Worth()
        self._drafted = 0

    @property
    def model(self) -> Loaded:
        """The draft model."""
        return self._draft.loaded

    @property
    def kv_bytes(self) -> int:
        """Bytes of KV cache held for a row."""
        return self._kv.nbytes if self._kv is not None else 0

    def suits(self, rows: Sequence[Row]) -> bool:
        """A lone row: a batch makes that use of a pass already."""
        return len(rows) == 1

    def ready(self, rows: Sequence[Row]) -> bool:
        """Whether to draft for it now: the draft has caught up, there is room, and it has paid so far."""
        (row,) = rows
        if self._row is not row or self._behind(row):
            return False
        return self._room(row) > 0 and not self._worth.paused(len(row.said))

    def propose(self, rows: Sequence[Row]) -> Proposals:
        """The next tokens, as the draft would have them. On a GPU nothing is waited for."""
        (row,) = rows
        if self._kv is None or self._shadow is None:
            raise RuntimeError("Only rows that it is ready for are drafted for.")
        draft = self._draft
        self._shadow.random.setstate(row.random.getstate())
        inputs = mx.array(row.tokens(self._seen), dtype=mx.uint32)
        proposals: list[mx.array] = []
        for _ in range(min(self._worth.size, self._room(row))):
            inputs = mx.minimum(inputs, draft.loaded.vocabulary - 1)  # the target may know more ids
            logits = draft.loaded.model(inputs[None], cache=self._kv.layers)[:, -1, : draft.vocabulary]
            logits = logits.astype(mx.float32)
            step = self._step([self._shadow], logits, logits)
            if isinstance(step, HostStep):
                step.read()
            inputs = step.tokens
            proposals.append(inputs)
        self._seen = row.length + len(proposals) - 1
        self._drafted = len(proposals)
        return Proposals(mx.concatenate(proposals)[None], lambda: [[int(it.item()) for it in proposals]])

    def verified(self, rows: Sequence[Row], outcomes: Sequence[Outcome], seconds: float) -> None:
        """What came of the latest proposals, which the row now has said as far as they were accepted."""
        (row,), proposed, accepted = rows, self._drafted, outcomes[0].accepted
        self.proposed += proposed
        self.accepted += accepted
        refused = max(0, proposed - 1 - accepted)  # the last one was never computed
        if self._kv is not None:
            self._kv.trim(refused)
            self._seen -= refused
        self._worth.judge(proposed, accepted, seconds, plain=self._plain_seconds, said=len(row.said))

    def stepped(self, rows: Sequence[Row], seconds: float) -> None:  # noqa: ARG002  it is the only one
        """A step of a lone row without a draft took ``seconds``; one beside a slice says nothing."""
        if not self._sliced:
            self._plain_seconds = (self._plain_seconds + seconds) / 2 if self._plain_seconds else seconds
        self._sliced = False

    def catch_up(self, rows: Sequence[Row]) -> None:
        """Compute a slice of what the draft has not seen of it, unless it is not wanted before the next step."""
        (row,) = rows
        if row.over or not self._room(row):
            return
        if self._row is not row:
            self._take(row)
        if self._kv is None or self._worth.paused(len(row.said) + 1) or not self._behind(row):
            return
        if self._work is None:
            missed = row.tokens(self._seen)[:-1]
            self._work = Prefill(self._draft.loaded.model, [missed], [self._kv], few_shapes=False)
            self._aim = self._seen + len(missed)
        started = time.perf_counter()
        piece = self._work.step(self._slice_size.tokens(decoding=True))
        self._slice_size.prefilled(piece, time.perf_counter() - started)
        self._sliced = True
        if not self._work.left:
            self._work, self._seen = None, self._aim

    def rest(self) -> None:
        """If its row has ended, let it go and keep what was computed of it for rows that begin alike."""
        if self._row is None or not self._row.over:
            return
        row, kv, seen, complete = self._row, self._kv, self._seen, self._work is None
        self._let_go()
        if kv is not None and complete and seen - self._found >= self._prefixes.shared.worth_keeping:
            self._prefixes.of(row.request.owner).put(row.tokens()[:seen], kv)

    def forget(self) -> None:
        """Let go of everything that is held for rows, those that ended too."""
        self._let_go()
        self._prefixes.clear()

    def _take(self, row: Row) -> None:
        self.rest()
        self._let_go()
        draft = self._draft.loaded
        found = self._prefixes.of(row.request.owner).find(pack(row.tokens()))
        self._kv, self._found = found or (KV.fresh(draft.model, draft.kv_bits), 0)
        self._seen = self._found
        self._row = row
        self._shadow = Row(row.stream, row.sequence, row.index, replace(row.request, logprobs=None), row.spelling)
        self._worth = Worth()

    def _let_go(self) -> None:
        self._row = self._shadow = self._kv = self._work = None

    def _behind(self, row: Row) -> bool:
        """Whether the draft has missed more than it is given at once."""
        return row.length - self._seen > MOST

    def _room(self, row: Row) -> int:
        """How many tokens may be proposed: the target adds one more, and the draft has a context of its own."""
        length = len(row.request.prompt) + row.queued
        return max(0, min(row.room, self._draft.context_length - length))
