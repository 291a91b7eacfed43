"""Which rows of a batch lie in one rectangle: few rectangles, and little padding in any."""

from __future__ import annotations

from collections.abc import Sequence

STEP = 256
"""Positions that are allocated at once."""
SPARE = 1.25
"""What a batch may hold of its tokens' own size, beside one step a row."""
CALM = 0.93
"""How much of that a new arrangement takes, so that rows which grow do not soon ask for another."""

CLASS = 2048
"""Positions whose attention takes as long as one more class does: what each layer launches for it. Measured on an H200.
"""
WORTH_MOVING = 1.15
"""How many times what the best arrangement costs may be paid before rows are moved, which copies them."""

Groups = list[list[int]]
"""Rows, class by class."""


def allowed(lengths: Sequence[int]) -> float:
    """Positions that rows of ``lengths`` tokens may hold together."""
    return SPARE * sum(lengths) + STEP * len(lengths)


def held(groups: Groups, lengths: Sequence[int]) -> int:
    """Positions that they do hold, once one more token stands behind each."""
    return sum(len(rows) * _room(max(lengths[row] for row in rows)) for rows in groups)


def fits(groups: Groups, lengths: Sequence[int]) -> bool:
    """Whether ``groups`` hold no more than is allowed."""
    return held(groups, lengths) <= allowed(lengths)


def alike(lengths: Sequence[int]) -> bool:
    """Whether rows may share a rectangle for as long as they live: all grow alike, so that their padding stays."""
    return len(lengths) * max(lengths) <= SPARE * sum(lengths) + STEP / 2 * len(lengths)


def placed(groups: Groups, added: list[int], lengths: Sequence[int]) -> Groups:
    """``groups`` with the rows ``added``, where they cost least; anew where that is much cheaper."""
    options = [[*groups[:i], [*rows, *added], *groups[i + 1 :]] for i, rows in enumerate(groups)]
    best = min([*options, [*groups, added]], key=lambda option: _cost(option, lengths))
    if len(best) == 1 and fits(best, lengths):
        return best
    anew = arranged(lengths)
    return best if fits(best, lengths) and _cost(best, lengths) <= WORTH_MOVING * _cost(anew, lengths) else anew


def arranged(lengths: Sequence[int]) -> Groups:
    """The classes that cost least of those that hold calmly less than is allowed."""
    rows = sorted(range(len(lengths)), key=lambda row: lengths[row])
    filled = [lengths[row] for row in rows]
    ends = [i + 1 for i in range(len(rows)) if i + 1 == len(rows) or filled[i] != filled[i + 1]]
    groups = [list(range(len(rows)))]
    for price in (CLASS, CLASS / 4, CLASS / 16, 0):
        cuts = _cuts(filled, ends, price)
        groups = [rows[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]
        if held(groups, lengths) <= CALM * allowed(lengths):
            break
    return groups


def _cuts(filled: list[int], ends: list[int], price: float) -> list[int]:
    """Where to cut rows in the order of their lengths ``filled``, at some of ``ends``, so that they cost least."""
    starts = [0, *ends]
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for j, end in enumerate(ends, start=1):
        costs = [best[i][0] + (end - starts[i]) * filled[end - 1] + price for i in range(j)]
        least = min(range(j), key=costs.__getitem__)
        best.append((costs[least], [*best[least][1], end]))
    return best[-1][1]


def _cost(groups: Groups, lengths: Sequence[int]) -> float:
    """What a step attends to, in positions."""
    return sum(len(rows) * max(lengths[row] for row in rows) + CLASS for rows in groups)


def _room(length: int) -> int:
    return -(-(length + 1) // STEP) * STEP
