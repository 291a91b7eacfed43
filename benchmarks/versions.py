"""Two versions of the service in turns: the lines that ``--against DIR`` gives instead of those over other programs.

The ratio of a line is the better the larger it is: a rate of this version over the other's, or a time of the other's
over this one's.
"""

from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from benchmarks.bench import Bench
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server

BAR = 0.97


class Row(msgspec.Struct, frozen=True):
    """One figure of one kind of work; ``work`` is what the table calls it. ``time``: the less, the better."""

    kind: str
    figure: str
    work: str
    unit: str
    time: bool = False
    bar: float | None = BAR


def compare(
    bench: Bench,
    names: tuple[str, ...],
    kinds: dict[str, Callable[[Server, int], Figures]],
    rows: tuple[Row, ...],
    *,
    flags: tuple[str, ...] = (),
) -> Iterator[Line]:
    """Each kind of work on both versions, which run beside each other and take turns; a round alone to warm up."""
    with bench.services(*names, flags=lambda _checkout: flags) as sides:
        for side in sides:
            for work in kinds.values():
                work(side, -1)
        contenders = {f"{side.label}, {kind}": partial(work, side) for kind, work in kinds.items() for side in sides}
        yield from lines(bench, Runs(bench.rounds, contenders), rows)


def lines(bench: Bench, runs: Runs, rows: tuple[Row, ...]) -> Iterator[Line]:
    """``runs`` have each kind of work under the name of its version and its own."""
    ours, other = bench.versions
    for row in rows:
        line = runs.line(
            row.work,
            f"{ours}, {row.kind}",
            f"{other}, {row.kind}",
            row.figure,
            unit=row.unit,
            bar=row.bar,
            inverse=row.time,
        )
        line.against = other
        yield line
