"""Drafts without a model: a row that says again what it has read or said is likely to go on as it went on then.

The end of its text is looked for further up, and what followed there is proposed. A proposal is kept only while it
equals what the model draws, so this too has a say in the speed alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from app.engine.mlx.draw.logits import penalised
from app.engine.mlx.rows import Row
from app.engine.mlx.speculate.drafter import FIRST, MOST, Outcome, Proposals, Worth

MOST_ROWS = 8
"""Rows that are drafted for at once; more are a better use of a pass by themselves."""
LEAST_ALIKE, MOST_ALIKE = 3, 8
"""Tokens at the end of a text that must have been there before; one more after each place that led astray."""
LONGEST_ALIKE = 16
"""Of the places that are alike, those that are so for longer are preferred, up to this many tokens."""
REAL = 0.5
"""Part of the positions beside the rows' own in a pass that must be proposals, not padding."""


class Text:
    """What one row has read and said, and where in it something stood before."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._tokens = np.zeros(0, dtype=np.uint32)
        self._filled = 0
        self.size = FIRST
        self._alike = LEAST_ALIKE

    def follow(self) -> None:
        """Take what the row has said since."""
        added = self._row.tokens(self._filled)
        end = self._filled + len(added)
        if end > self._tokens.size:
            self._tokens = np.concatenate([self._tokens, np.zeros(max(end, 512), dtype=np.uint32)])
        self._tokens[self._filled : end] = added
        self._filled = end

    def continuation(self, most: int) -> list[int]:
        """What followed where its end stood before, the longest such end and of these the latest; at most ``most``.

        Where that place reaches the end itself, it is taken to go round.
        """
        place = self._place()
        if place is None or most < 1:
            return []
        period = self._filled - 1 - place
        behind = self._tokens[place + 1 : min(place + 1 + most, self._filled)].tolist()
        return [behind[i % period] for i in range(most)] if period < most else behind

    def judge(self, proposed: int, accepted: int) -> None:
        """So many of what it proposed were what the model drew."""
        if not accepted:
            self._alike = min(MOST_ALIKE, self._alike + 1)
        elif accepted == proposed:
            self._alike = max(LEAST_ALIKE, self._alike - 1)
        self.size = min(MOST, self.size + 2) if accepted == proposed else max(1, accepted + 1)

    def _place(self) -> int | None:
        """Where the last token of that place stands."""
        last = self._filled - 1
        if last < self._alike:
            return None
        tokens = self._tokens
        places = np.flatnonzero(tokens[self._alike - 1 : last] == tokens[last]) + (self._alike - 1)
        for back in range(1, min(LONGEST_ALIKE, last + 1)):
            longer = places[(places >= back) & (tokens[places - back] == tokens[last - back])]
            if not longer.size:
                return int(places[-1]) if places.size and back >= self._alike else None
            places = longer
        return int(places[-1]) if places.size else None


class Lookup:
    """The texts of the rows of one batch, and whether looking things up in them pays. MLX thread only.

    ``proposed`` and ``accepted`` count tokens since the load and may be read anywhere. ``clock`` is in seconds.
    """

    def __init__(self, *, most_rows: int = MOST_ROWS, clock: Callable[[], float] = time.perf_counter) -> None:
        self.proposed = 0
        self.accepted = 0
        self.clock = clock
        self._most_rows = most_rows
        self._texts: dict[Row, Text] = {}
        self._worth = Worth()
        self._steps = 0
        self._plain: dict[int, float] = {}
        """Seconds that a step without a draft takes, by the number of rows."""
        self._drafts: list[list[int]] = []

    @property
    def model(self) -> None:
        """None."""

    @property
    def kv_bytes(self) -> int:
        """None of its own."""
        return 0

    def suits(self, rows: Sequence[Row]) -> bool:
        """Few rows; several only where no penalty counts what they say."""
        return len(rows) <= self._most_rows and (len(rows) == 1 or not any(map(penalised, rows)))

    def ready(self, rows: Sequence[Row]) -> bool:
        """Whether some of them say what was there before, it has paid so far and there is something to hold it against.

        Their last tokens may not be known yet: then what is known must go on as it did, or nothing is drafted.
        """
        if any(row not in self._texts for row in rows):
            self._texts = {row: self._texts.get(row) or Text(row) for row in rows}
            self._worth, self._steps = Worth(), 0
        if len(rows) not in self._plain or self._worth.paused(self._steps):
            return False
        return bool(self._looked_up(rows))

    def propose(self, rows: Sequence[Row]) -> Proposals | None:
        """What followed in each text, cut to a width at which most of a pass is proposals."""
        self._drafts = drafts = self._looked_up(rows)
        if not drafts:
            return None
        width = max(map(len, drafts))
        padded = [[*draft, *([0] * (width - len(draft)))] for draft in drafts]
        return Proposals(mx.array(padded, dtype=mx.uint32), lambda: drafts)

    def verified(self, rows: Sequence[Row], outcomes: Sequence[Outcome], seconds: float) -> None:
        """What came of them."""
        self._steps += 1
        for row, draft, outcome in zip(rows, self._drafts, outcomes, strict=True):
            if draft:
                self._texts[row].judge(len(draft), outcome.accepted)
            self.proposed += len(draft)
            self.accepted += outcome.accepted
        more = sum(outcome.made for outcome in outcomes) / len(rows) - 1
        self._worth.judge(MOST, more, seconds, plain=self._plain[len(rows)], said=self._steps)

    def stepped(self, rows: Sequence[Row], seconds: float) -> None:
        """A step of so many rows without a draft took ``seconds``."""
        known = self._plain.get(len(rows))
        self._plain[len(rows)] = seconds if known is None else (known + seconds) / 2

    def catch_up(self, rows: Sequence[Row]) -> None:  # noqa: ARG002  nothing is computed for them
        """Count the step."""
        self._steps += 1

    def rest(self) -> None:
        """Let go of rows that have ended."""
        if any(row.over for row in self._texts):
            self._texts = {row: text for row, text in self._texts.items() if not row.over}

    def forget(self) -> None:
        """Let go of all texts."""
        self._texts = {}

    def _looked_up(self, rows: Sequence[Row]) -> list[list[int]]:
        """A draft for each row, none: empty; no drafts where too few rows have one."""
        drafts = []
        for row in rows:
            text = self._texts[row]
            text.follow()
            drafts.append(text.continuation(min(text.size, row.room)))
        lengths = [len(draft) for draft in drafts]
        for width in range(max(lengths), 0, -1):
            if sum(min(length, width) for length in lengths) >= REAL * width * len(rows):
                return [draft[:width] for draft in drafts]
        return []
