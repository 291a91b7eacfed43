"""Log probabilities, computed only for the rows that ask and read from the device once."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from app.engine.base import TopLogprob
from app.engine.mlx.rows import Row

Score = tuple[float, tuple[TopLogprob, ...]]
"""Log probability of the token that stands there, and the likeliest ones, best first."""


class Scores:
    """Log probabilities at several positions, queued on the device and read later. MLX thread only.

    ``logits`` is ``[positions, vocabulary]``, ``chosen`` ``[positions]`` token ids; ``top`` alternatives each.
    """

    def __init__(self, logits: mx.array, chosen: mx.array, top: int) -> None:
        chosen_logits = mx.take_along_axis(logits, chosen[:, None], axis=-1)
        normaliser = mx.logsumexp(logits, axis=-1, keepdims=True)
        self._top = top
        self.arrays = [(chosen_logits - normaliser)[:, 0]]
        if top:
            ids = mx.argpartition(logits, -top, axis=-1)[:, -top:]
            self.arrays += [ids, mx.take_along_axis(logits, ids, axis=-1) - normaliser]

    def read(self) -> list[Score]:
        """One score per position; waits for the device."""
        chosen = self.arrays[0].tolist()
        if not self._top:
            return [(logprob, ()) for logprob in chosen]
        ids, values = np.asarray(self.arrays[1]), np.asarray(self.arrays[2])
        order = np.argsort(-values, axis=-1, kind="stable")
        return [
            (logprob, tuple(TopLogprob(int(ids[i, j]), float(values[i, j])) for j in order[i]))
            for i, logprob in enumerate(chosen)
        ]


class RowScores:
    """The scores of those rows of a step that asked for them."""

    def __init__(self, rows: Sequence[Row], logits: mx.array, tokens: mx.array) -> None:
        self._asked = [(i, row.request.logprobs) for i, row in enumerate(rows) if row.request.logprobs is not None]
        self._scores: Scores | None = None
        if self._asked:
            index = mx.array([i for i, _ in self._asked])
            top = max(top for _, top in self._asked)
            self._scores = Scores(logits[index], tokens[index], min(top, logits.shape[-1]))

    @property
    def arrays(self) -> list[mx.array]:
        """What to evaluate with the step."""
        return self._scores.arrays if self._scores is not None else []

    def read(self) -> dict[int, Score]:
        """Scores by the row's place in the step; waits for the device."""
        if self._scores is None:
            return {}
        return {
            i: (logprob, best[:top]) for (i, top), (logprob, best) in zip(self._asked, self._scores.read(), strict=True)
        }
