"""What requests ask of the logits themselves, for all rows in one vectorised step.

What is meant by each field is said in :class:`app.schemas.sampling.Sampling`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import mlx.core as mx

from app.engine.mlx.rows import Row


class Penalties:
    """Token counts of the rows that ask for penalties: ``[penalised rows, vocabulary]``.

    ``counts`` holds generated tokens (frequency and presence), ``seen`` the prompt's too (repetition). Both are made
    when the first logits come, because only they know the vocabulary's size. MLX thread only.
    """

    def __init__(
        self, rows: Sequence[Row], batch_index: list[int], known: dict[Row, tuple[mx.array, mx.array]]
    ) -> None:
        self._rows = rows
        self._index = mx.array(batch_index)
        self._known = known
        self._state: tuple[mx.array, mx.array] | None = None
        samplings = [row.request.sampling for row in rows]
        self._frequency = mx.array([[s.frequency_penalty] for s in samplings])
        self._presence = mx.array([[s.presence_penalty] for s in samplings])
        self._repetition = mx.array([[s.repetition_penalty] for s in samplings])

    @classmethod
    def build(cls, rows: Sequence[Row], previous: Penalties | None) -> Penalties | None:
        """For the rows that ask, with the counts they have in ``previous``; None if none asks."""
        asking = [(i, row) for i, row in enumerate(rows) if penalised(row)]
        if not asking:
            return None
        known = previous.by_row() if previous is not None else {}
        return cls([row for _, row in asking], [i for i, _ in asking], known)

    def by_row(self) -> dict[Row, tuple[mx.array, mx.array]]:
        """Counts and seen marks of each row."""
        if self._state is None:
            return self._known
        counts, seen = self._state
        return {row: (counts[i], seen[i]) for i, row in enumerate(self._rows)}

    def apply(self, logits: mx.array) -> mx.array:
        """The logits, ``[rows, vocabulary]``, with every penalty taken off."""
        counts, seen = self._state = self._state or self._fill(logits.shape[-1])
        mine = logits[self._index]
        scaled = mx.where(mine > 0, mine / self._repetition, mine * self._repetition)
        mine = mx.where(seen, scaled, mine) - self._frequency * counts - self._presence * (counts > 0)
        logits = mx.array(logits)
        logits[self._index] = mine
        return logits

    def count(self, tokens: mx.array) -> None:
        """Note the tokens just drawn, ``[rows]``; follows :meth:`apply`."""
        if self._state is None:
            return
        counts, seen = self._state
        drawn = tokens[self._index]
        each = mx.arange(len(self._rows))
        counts = counts.at[each, drawn].add(1)
        seen[each, drawn] = True
        self._state = counts, seen

    def _fill(self, vocabulary: int) -> tuple[mx.array, mx.array]:
        states = [self._known.get(row) or _initial(row, vocabulary) for row in self._rows]
        self._known = {}
        return mx.stack([counts for counts, _ in states]), mx.stack([seen for _, seen in states])


def penalised(row: Row) -> bool:
    """Whether what the row has said bears on what it says next, apart from the model."""
    sampling = row.request.sampling
    return bool(sampling.frequency_penalty or sampling.presence_penalty or sampling.repetition_penalty != 1)


def _initial(row: Row, vocabulary: int) -> tuple[mx.array, mx.array]:
    seen = mx.zeros((vocabulary,), dtype=mx.bool_)
    if row.request.sampling.repetition_penalty != 1:
        seen[mx.array(sorted({*row.request.prompt, *row.said}))] = True
    counts = mx.zeros((vocabulary,), dtype=mx.float32)
    if row.said:
        said = Counter(row.said)
        counts[mx.array(list(said))] = mx.array([float(times) for times in said.values()])
    return counts, seen


BANNED = -float("inf")
FORCED = 1e4
"""Added for a bias of 100: far above any logit, yet fine enough in float32 to keep forced tokens' order."""


class LogitsProcessor:
    """Biases, bans and penalties of a fixed set of rows; made anew when rows come or go. MLX thread only."""

    def __init__(self, rows: Sequence[Row], previous: LogitsProcessor | None = None) -> None:
        self._rows = rows
        self._bias = _bias(rows)
        self._penalties = Penalties.build(rows, previous.penalties if previous is not None else None)

    @property
    def penalties(self) -> Penalties | None:
        """The counts behind penalties, which move on to the next processor with their rows."""
        return self._penalties

    def process(self, logits: mx.array) -> mx.array:
        """Apply them to ``[rows, vocabulary]`` float32 logits; nothing is evaluated."""
        if self._bias is not None:
            rows, ids, values = self._bias
            logits = logits.at[rows, ids].add(values)
        logits = self._mask_stops(logits)
        return self._penalties.apply(logits) if self._penalties is not None else logits

    def count(self, tokens: mx.array) -> None:
        """Note the tokens drawn from what :meth:`process` returned, ``[rows]``; they may not be known yet."""
        if self._penalties is not None:
            self._penalties.count(tokens)

    def _mask_stops(self, logits: mx.array) -> mx.array:
        """Ban the stop tokens of rows that must still grow."""
        held = [
            (i, stop)
            for i, row in enumerate(self._rows)
            if row.queued < row.request.min_tokens
            for stop in row.request.stop_ids
        ]
        if not held:
            return logits
        rows, ids = zip(*held, strict=True)
        return logits.at[mx.array(rows), mx.array(ids)].add(BANNED)


def _bias(rows: Sequence[Row]) -> tuple[mx.array, mx.array, mx.array] | None:
    """All rows' logit biases as (row, token id, value) columns."""
    entries = [
        (i, token, BANNED if value <= -100 else FORCED if value >= 100 else value)
        for i, row in enumerate(rows)
        for token, value in row.request.sampling.logit_bias
    ]
    if not entries:
        return None
    index, ids, values = zip(*entries, strict=True)
    return mx.array(index), mx.array(ids), mx.array(values, dtype=mx.float32)
