"""Measurements side by side: rounds that take turns, medians, a table with its bars, a JSON file."""

import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median

import msgspec

Figures = dict[str, float]


class Line(msgspec.Struct, kw_only=True):
    """One comparison. ``bar`` bounds ``ratio`` from below, or from above where ``at_most``; None: told, not judged.

    ``spread`` holds the quartiles of ``rounds`` ratios.
    """

    work: str
    ours: float
    other: float
    unit: str
    against: str
    ratio: float
    bar: float | None = None
    at_most: bool = False
    rounds: int = 0
    spread: tuple[float, float] | None = None
    detail: dict[str, Figures] = {}

    @property
    def verdict(self) -> str:
        """``pass``, ``miss`` or nothing."""
        if self.bar is None:
            return ""
        return "pass" if (self.ratio <= self.bar if self.at_most else self.ratio >= self.bar) else "miss"


class Runs:
    """Every round of every contender, in the order in which they took turns; standard error tells each as it ends."""

    def __init__(self, rounds: int, contenders: Mapping[str, Callable[[int], Figures]]) -> None:
        self.figures: dict[str, list[Figures]] = {name: [] for name in contenders}
        for number in range(rounds):
            order = list(contenders)
            for name in order if number % 2 == 0 else reversed(order):
                figures = contenders[name](number)
                self.figures[name].append(figures)
                told = ", ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
                print(f"  round {number + 1}, {name}: {told}", file=sys.stderr, flush=True)

    def median(self, name: str, figure: str) -> float:
        """The middle one of the rounds."""
        return median(round_[figure] for round_ in self.figures[name])

    def ratios(self, over: str, under: str, figure: str) -> list[float]:
        """Each round's own, in ascending order, so that a busy moment of the machine weighs on both sides."""
        pairs = zip(self.figures[over], self.figures[under], strict=True)
        return sorted(above[figure] / below[figure] for above, below in pairs)

    def line(
        self,
        work: str,
        ours: str,
        other: str,
        figure: str,
        *,
        unit: str,
        bar: float | None,
        at_most: bool = False,
        inverse: bool = False,
    ) -> Line:
        """Ours over the other, or with ``inverse`` the other over ours; the median of the rounds' ratios."""
        ratios = self.ratios(other, ours, figure) if inverse else self.ratios(ours, other, figure)
        return Line(
            work=work,
            ours=self.median(ours, figure),
            other=self.median(other, figure),
            unit=unit,
            against=other,
            ratio=median(ratios),
            bar=bar,
            at_most=at_most,
            rounds=len(ratios),
            spread=quartiles(ratios),
            detail={name: self._medians(name) for name in (ours, other)},
        )

    def _medians(self, name: str) -> Figures:
        return {figure: self.median(name, figure) for figure in self.figures[name][0]}


def quartiles(ordered: list[float]) -> tuple[float, float] | None:
    """Of values in ascending order; None where there are too few to have any."""
    return (ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]) if len(ordered) >= 4 else None


class Report:
    """Prints lines as they come and keeps them in ``path``, so that an interrupted run leaves what it measured."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._begun = time.time()
        self.lines: list[Line] = []

    def add(self, line: Line) -> None:
        """Print one line and write them all."""
        if not self.lines:
            print(f"{'work':64} {'ours':>9} {'other':>9} {'unit':8} {'ratio':>6} {'bar':>6}       against")
        self.lines.append(line)
        bar = "" if line.bar is None else f"{'<=' if line.at_most else '>='}{line.bar:g}"
        spread = f" ({line.spread[0]:.2f} to {line.spread[1]:.2f} in {line.rounds})" if line.spread else ""
        print(
            f"{line.work:64} {line.ours:9.4g} {line.other:9.4g} {line.unit:8} {line.ratio:6.2f} {bar:>6} "
            f"{line.verdict:5} {line.against}{spread}",
            flush=True,
        )
        if self._path is not None:
            self._path.write_bytes(msgspec.json.format(msgspec.json.encode(self._whole())))

    def _whole(self) -> dict[str, object]:
        versions = {name: version(name) for name in ("mlx", "mlx-lm", "litestar", "uvicorn", "msgspec")}
        return {
            "machine": f"{platform.machine()} {platform.system()}, Python {sys.version.split()[0]}",
            "versions": versions,
            "seconds": time.time() - self._begun,
            "lines": [msgspec.to_builtins(line) | {"verdict": line.verdict} for line in self.lines],
        }
