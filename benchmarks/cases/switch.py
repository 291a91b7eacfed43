"""Two models with room for one: what 200 switches leave in memory, and how soon a model that comes back answers.

A switch ends one process and loads in another, which has waited with its imports done if the last switch is long
enough ago. An import is therefore measured apart. ``switch:memory`` and ``switch:time`` are each half of it.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.client import Load
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server
from benchmarks.traffic import chat
from benchmarks.versions import BAR, Row, lines

MODELS = ("w64", "w64-other")
ONE, ONE_IN_WEIGHTS = "400MiB", "24MiB"
"""Each takes 13 MB, and with its process and room for computing some 290; version 0.1 counts the former alone."""
SWITCHES = 200
PAUSE_SECONDS = 5.0
IN_A_ROW = 6
"""Switches back to back in one round."""


def run(bench: Bench, part: str = "") -> Iterator[Line]:
    bench.make(*MODELS)
    with servers.ours(bench.home, flags=_room(servers.HERE)) as server:
        if part != "memory":
            runs = Runs(bench.rounds, {"resident": partial(_resident, server), **_kinds(server), "import": _import})
            for kind, work in _WORK.items():
                yield runs.line(f"{work}, over a resident model", kind, "resident", "ms", unit="ms", bar=None)
            yield runs.line("import mlx_lm, over a switch after a pause", "import", "paused", "ms", unit="ms", bar=None)
        if part != "time":
            yield _memory(server)


def against(bench: Bench, part: str = "") -> Iterator[Line]:
    bench.make(*MODELS)
    with bench.services(flags=_room) as sides:
        if part != "memory":
            contenders = {f"{side.label}, {kind}": work for side in sides for kind, work in _kinds(side).items()}
            runs = Runs(bench.rounds, contenders | {"import": _import})
            bars = {"paused": BAR, "in a row": None}  # where no process waits, an import is allowed for: the next line
            rows = tuple(Row(kind, "ms", work, "ms", time=True, bar=bars[kind]) for kind, work in _WORK.items())
            yield from lines(bench, runs, rows)
            yield _beside_an_import(bench, runs)
        if part != "time":
            yield from map(_memory, sides)


def _room(checkout: Path) -> tuple[str, str]:
    """A budget for one of the models, in what a version counts."""
    counts_all = (checkout / "app" / "engine" / "host" / "audit.py").exists()
    return "--memory-budget", ONE if counts_all else ONE_IN_WEIGHTS


def _beside_an_import(bench: Bench, runs: Runs) -> Line:
    """What back to back is allowed: the other version's time and one import."""
    ours, other = (runs.figures[f"{label}, in a row"] for label in bench.versions)
    ratios = [
        it["ms"] / (theirs["ms"] + imported["ms"])
        for it, theirs, imported in zip(ours, other, runs.figures["import"], strict=True)
    ]
    return Line(
        work=f"{_WORK['in a row']}, over that and an import",
        ours=median(it["ms"] for it in ours),
        other=median(it["ms"] for it in other) + runs.median("import", "ms"),
        unit="ms",
        against="theirs and import mlx_lm",
        ratio=median(ratios),
        bar=1,
        at_most=True,
        rounds=len(ratios),
    )


_WORK = {
    "paused": f"first text of a switch back, {PAUSE_SECONDS:g} s after the last",
    "in a row": "first text of a switch back, straight after the last",
}


def _kinds(server: Server) -> dict[str, Callable[[int], Figures]]:
    return {"paused": partial(_paused, server), "in a row": partial(_in_a_row, server)}


def _switches(server: Server, count: int) -> list[float]:
    """Seconds to the first text of each request; the models take turns."""
    asks = [chat(MODELS[number % 2], f"Switch {number} at {time.time()}.", 2) for number in range(count)]
    return [answer.first for answer in server.drive(Load(0, asks, at_once=1))]


def _paused(server: Server, _number: int) -> Figures:
    _switches(server, 2)
    time.sleep(PAUSE_SECONDS)
    return {"ms": _switches(server, 1)[0] * 1e3}


def _in_a_row(server: Server, _number: int) -> Figures:
    return {"ms": median(_switches(server, IN_A_ROW)[1:]) * 1e3}


def _resident(server: Server, _number: int) -> Figures:
    _switches(server, 1)
    return {"ms": _switches(server, 1)[0] * 1e3}


def _import(_number: int) -> Figures:
    """A process that imports what a model needs and ends, with nothing else running."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import mlx_lm"], check=True, env=servers.environment())
    return {"ms": (time.perf_counter() - begun) * 1e3}


def _memory(server: Server) -> Line:
    """All processes at rest, after the switches over before them; both times the same model is there."""
    held = []
    for count in (2, SWITCHES):
        _switches(server, count)
        server.rest()
        held.append(server.resident())
    return Line(
        work=f"{server.label}: all processes after {SWITCHES} switches",
        ours=held[1],
        other=held[0],
        unit="MiB",
        against="before them",
        ratio=held[1] / held[0],
        bar=1.02,
        at_most=True,
    )
