"""What a loaded model makes of token ids: a row of numbers for each text, or one score for each pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
from msgspec import Struct

from app.engine.mlx.encode.pooling import Dense, normalised, pooled
from app.engine.mlx.encode.recipe import Recipe


class Piece(Struct, frozen=True):
    """One text, or one pair, as token ids.

    ``types`` are its segments where the model tells them apart; the first ``skipped`` tokens are a prompt that is not
    pooled.
    """

    ids: Sequence[int]
    types: Sequence[int] | None = None
    skipped: int = 0


class Encoder(Protocol):
    """A model that has a vector for each token.

    ``ids`` and ``types`` are ``[rows, tokens]``, padded on the right; ``lengths`` is ``[rows]``.
    """

    def hidden(self, ids: mx.array, lengths: mx.array, types: mx.array) -> mx.array:
        """The last layer, ``[rows, tokens, width]``; whatever stands at padding."""


class Scorer(Protocol):
    """A model that has a score for each row; see :class:`Encoder` for what it is asked."""

    def scores(self, ids: mx.array, lengths: mx.array, types: mx.array) -> mx.array:
        """``[rows]``."""


class Computer(Protocol):
    """What becomes of pieces. MLX thread."""

    def compute(self, pieces: Sequence[Piece]) -> mx.array:
        """``[pieces, numbers]`` in 32 bits, not evaluated."""


class Vectors:
    """An encoder, its pooling, and what stands behind that."""

    def __init__(self, encoder: Encoder, recipe: Recipe, dense: Sequence[Dense]) -> None:
        self._encoder = encoder
        self._recipe = recipe
        self._dense = tuple(dense)

    def compute(self, pieces: Sequence[Piece]) -> mx.array:
        """The texts' vectors."""
        ids, lengths, types = padded(pieces)
        skipped = mx.array([0 if self._recipe.include_prompt else piece.skipped for piece in pieces])
        vectors = pooled(self._encoder.hidden(ids, lengths, types), lengths, skipped, self._recipe.pooling)
        for dense in self._dense:
            vectors = dense(vectors)
        return normalised(vectors) if self._recipe.normalize else vectors


class Scores:
    """A reranker; ``squashed`` makes of a logit a number from 0 to 1."""

    def __init__(self, scorer: Scorer, *, squashed: bool) -> None:
        self._scorer = scorer
        self._squashed = squashed

    def compute(self, pieces: Sequence[Piece]) -> mx.array:
        """The pairs' scores."""
        scores = self._scorer.scores(*padded(pieces)).astype(mx.float32)[:, None]
        return mx.sigmoid(scores) if self._squashed else scores


class YesOrNo:
    """A causal model that has been taught to say ``yes`` or ``no`` of a document.

    The score is how much likelier one is than the other: the sigmoid of that is the softmax over both.
    """

    def __init__(self, model: Any, yes: int, no: int) -> None:
        self.model = model
        self._answers = mx.array([yes, no])

    def scores(self, ids: mx.array, lengths: mx.array, types: mx.array) -> mx.array:  # noqa: ARG002
        """``[rows]``; only the last token of each row goes through the head."""
        hidden = self.model.model(ids)
        last = hidden[mx.arange(ids.shape[0]), lengths - 1]
        head = self.model.get("lm_head")
        logits = self.model.model.embed_tokens.as_linear(last) if head is None else head(last)
        both = logits[:, self._answers].astype(mx.float32)
        return both[:, 0] - both[:, 1]


def padded(pieces: Sequence[Piece]) -> tuple[mx.array, mx.array, mx.array]:
    """Ids, lengths and segments of a slice; padding has id 0, which nothing looks at."""
    lengths = [len(piece.ids) for piece in pieces]
    ids = np.zeros((len(pieces), max(lengths)), np.int32)
    types = np.zeros_like(ids)
    for row, piece in enumerate(pieces):
        ids[row, : lengths[row]] = piece.ids
        if piece.types is not None:
            types[row, : lengths[row]] = piece.types
    return mx.array(ids), mx.array(lengths), mx.array(types)
