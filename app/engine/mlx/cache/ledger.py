"""The books of one model: what is set aside for it, and what it holds."""

from __future__ import annotations

from collections.abc import Callable

from app.engine.facts import Books
from app.engine.mlx.cache.law import SLICE
from app.engine.mlx.loaded import Loaded

MARGIN = 128, 4096
"""The slice, and the tokens before it, that scratch is set aside for, unless a whole slice with none takes more."""
WHOLE = 512
"""Tokens of such a slice, at least."""
LOGITS = 3
"""How often a step holds its logits: as computed, as processed, as drawn from."""
SCORED = 64, 32 << 20
"""Positions whose logits are held at once at most where a prompt is scored, and their bytes."""


class Ledger:
    """One model's books. Changed on the MLX thread, read anywhere.

    ``first`` is itself, ``held`` tells what rows hold now, as laid out. ``law`` is what a row takes,
    ``room`` the bytes set aside for scratch.
    """

    def __init__(
        self, first: Loaded, draft: Loaded | None, *, rows: int, slice_tokens: int, held: Callable[[], int]
    ) -> None:
        models = [first] if draft is None else [first, draft]
        self.law = first.law if draft is None else first.law.beside(draft.law)
        self.weights = sum(it.nbytes for it in models)
        self._scratch = first.scratch
        self._held = held
        each = 4 * first.vocabulary
        logits = max(rows * each, min(SCORED[0] * each, SCORED[1]))
        slices = [max(it.scratch.nbytes(*MARGIN), it.scratch.nbytes(max(WHOLE, slice_tokens), 0)) for it in models]
        self._slices = slices[0]
        self.room = max(slices) + LOGITS * logits

    def slice(self, wanted: int, before: int) -> int:
        """Of ``wanted`` tokens behind ``before`` others, those that may be computed at once; one at least."""
        most = self._scratch.most(self._slices, before)
        if self.law.windows:
            most = min(most, SLICE)
        return max(1, min(wanted, most))

    def books(self) -> Books:
        """What this model has, but for what belongs to all of its process."""
        return Books(weights=self.weights, scratch=self.room, kv=self._held())
