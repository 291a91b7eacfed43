"""Where the states of layers that cannot be cut are kept, and which of them go first."""

from __future__ import annotations

from collections.abc import Sequence

EVERY = 2048
"""Tokens of a long prompt between two checkpoints, if these take no more memory than the tokens between them do."""
NEAR = 8
"""In the last ``EVERY`` tokens, which are edited most, it is so many times the least that is worth keeping."""
FEW, MANY = 4, 32
"""Checkpoints of one sequence: the latest that are kept whatever they take, and the most that are kept."""


class Spacing:
    """One model's: it learns from what is kept how many tokens take as much memory as their states do.

    ``apart`` is the least that two checkpoints are worth having apart.
    """

    def __init__(self, apart: int) -> None:
        self._apart = apart
        self._nearest = NEAR * apart
        self._every = self._near = EVERY

    def places(self, boundaries: Sequence[int], known: int, end: int) -> list[int]:
        """Positions of a prompt, behind those ``known`` and up to its ``end``.

        They are its ``boundaries``, places between those that lie far apart, closer ones in what was said last, and its
        end where none lies near.
        """
        likely = sorted({at for at in boundaries if known + self._apart <= at <= end})
        if not likely or end - likely[-1] >= self._apart:
            likely.append(end)
        found: list[int] = []
        for at in likely:
            before = found[-1] if found else known
            last = min(at, end - EVERY)
            if last - before >= self._apart:
                found += [*_between(before, last, self._every), last]
                before = last
            if before < at:
                found += [*_between(before, at, self._near), at]
        return found

    def kept(self, position: int, states: int, cuts: int) -> None:
        """The states of a ``position`` have so many bytes, the keys and values of all tokens before it ``cuts``."""
        if cuts:
            worth = min(position, states * position // cuts)
            self._every, self._near = max(EVERY, worth), max(self._nearest, worth)

    @staticmethod
    def surplus(positions: Sequence[int], end: int, states: int, cuts: int) -> list[int]:
        """Which of the checkpoints of a sequence up to its ``end`` are too many: numbers, the next one first."""
        left, going = list(range(len(positions))), list[int]()
        most = max(FEW, min(MANY, cuts // max(1, states))) if cuts else MANY
        while len(left) > most:
            going.append(left.pop(_least_missed([positions[i] for i in left], end)))
        return going


def _between(start: int, end: int, apart: int) -> list[int]:
    """Places between two, so many that no stretch is longer than ``apart``."""
    count = (end - start) // apart
    return [start + (end - start) * i // (count + 1) for i in range(1, count + 1)]


def _least_missed(positions: Sequence[int], end: int) -> int:
    """Which one leaves the smallest gap, for how far back it lies; neither the first nor one of the latest."""
    inner = range(1, len(positions) - FEW + 1)
    return min(inner, key=lambda i: (positions[i + 1] - positions[i - 1]) / (end - positions[i] + 1))
