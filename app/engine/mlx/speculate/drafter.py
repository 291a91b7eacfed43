"""What proposes tokens to a decode batch: a model that drafts, or the rows' own texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import mlx.core as mx

from app.engine.mlx.loaded import Loaded
from app.engine.mlx.rows import Row

FIRST = 4
"""Tokens that a row's first draft has."""
MOST = 8
"""Most tokens of a draft."""
OPENING = 3
"""Tokens that each row says without a draft; what they take is what drafts are held against."""
ROUNDS = 4
"""Rounds of draft and verification after which it is judged whether they pay."""
PAUSE, LONGEST_PAUSE = 32, 1024
"""Tokens without a draft after rounds that did not pay; twice as many each time that happens again."""


class Outcome(NamedTuple):
    """What came of one row's draft: tokens made, those of them that were proposed, and the last one made."""

    made: int
    accepted: int
    token: int


class Proposals(NamedTuple):
    """Each row's tokens, of which there may be none, and the same as the model is given them.

    ``tokens`` is ``[rows, width]`` uint32, behind the tokens that the rows have said; shorter drafts are padded. On a
    GPU it may still be computed: ``known`` waits for it.
    """

    tokens: mx.array
    known: Callable[[], list[list[int]]]


class Drafter(Protocol):
    """MLX thread only; ``proposed`` and ``accepted`` count tokens since the load and may be read anywhere.

    ``clock`` is in seconds.
    """

    proposed: int
    accepted: int
    clock: Callable[[], float]

    @property
    def model(self) -> Loaded | None:
        """What it drafts with beside the model itself."""

    @property
    def kv_bytes(self) -> int:
        """Bytes of KV cache held for rows; any thread."""

    def suits(self, rows: Sequence[Row]) -> bool:
        """Whether rows like these may be drafted for at all."""

    def ready(self, rows: Sequence[Row]) -> bool:
        """Whether to draft for them now; their last tokens may not be known yet."""

    def propose(self, rows: Sequence[Row]) -> Proposals | None:
        """What they may say next, where something is proposed; all that they have said is known."""

    def verified(self, rows: Sequence[Row], outcomes: Sequence[Outcome], seconds: float) -> None:
        """What came of the latest proposals, and what the round took."""

    def stepped(self, rows: Sequence[Row], seconds: float) -> None:
        """A step without a draft took ``seconds``."""

    def catch_up(self, rows: Sequence[Row]) -> None:
        """A step of them without a draft is queued."""

    def rest(self) -> None:
        """Let go of rows that have ended."""

    def forget(self) -> None:
        """Let go of everything that is held for rows, those that ended too."""


class Worth:
    """How much to draft, and whether to draft at all.

    The length follows the heuristic of Hugging Face's assisted generation: two more after a draft that was accepted
    as a whole, else one less. Rounds that take longer per token than plain steps do are followed by a pause.
    """

    def __init__(self) -> None:
        self.size = FIRST
        self._resume = 0
        self._pause = PAUSE
        self._rounds, self._tokens, self._seconds = 0, 0.0, 0.0

    def paused(self, said: int) -> bool:
        """Whether who has said so many tokens should go on without a draft."""
        return said < max(self._resume, OPENING)

    def judge(self, proposed: int, accepted: float, seconds: float, *, plain: float, said: int) -> None:
        """A round has ended: it took ``seconds`` for the accepted tokens and one more, a plain step takes ``plain``."""
        self.size = min(MOST, self.size + 2) if accepted == proposed else max(1, self.size - 1)
        self._rounds += 1
        self._tokens += accepted + 1
        self._seconds += seconds
        if self._rounds < ROUNDS:
            return
        if self._seconds > self._tokens * plain:
            self.size, self._resume = 1, said + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        else:
            self._pause = PAUSE
        self._rounds, self._tokens, self._seconds = 0, 0.0, 0.0
