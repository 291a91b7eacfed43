"""What the service and its models' processes hold after 5,000 requests, over what they held after 200.

It is read twice: straight after the last answer, when buffers are kept for reuse, and after a pause, in which the
service gives those back. Only the second tells a leak, and is judged. No prompt comes twice. The prefix cache is kept
so small that it is full after the first 200: filling it is no leak.
"""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.client import Load
from benchmarks.report import Figures, Line, Runs
from benchmarks.traffic import chat, texts
from benchmarks.versions import Row, lines

EARLY, LATE = 200, 5000
AT_ONCE = 32
TOKENS = 8
FLAGS = ("--prefix-cache", "16MiB")
PAUSE_SECONDS = 3


def run(bench: Bench) -> Iterator[Line]:
    bench.make("w64")
    found = _measure(bench, "switchyard", servers.HERE)
    yield _line("straight after", found["early_at_work"], found["at_work"], bar=None)
    yield _line(f"{PAUSE_SECONDS} s after", found["early_at_rest"], found["at_rest"], bar=1.03)


def against(bench: Bench) -> Iterator[Line]:
    bench.make("w64")
    contenders = {
        f"{label}, held": partial(_round, bench, label, checkout) for label, checkout in bench.versions.items()
    }
    rows = (
        Row("held", "at_work", f"all processes straight after {LATE} requests", "MiB", time=True, bar=None),
        Row("held", "at_rest", f"all processes {PAUSE_SECONDS} s after {LATE} requests", "MiB", time=True, bar=None),
    )
    yield from lines(bench, Runs(bench.rounds, contenders), rows)


def _round(bench: Bench, label: str, checkout: Path, _number: int) -> Figures:
    return _measure(bench, label, checkout)


def _measure(bench: Bench, label: str, checkout: Path) -> Figures:
    """MiB that all processes of a new service hold, early and late."""
    at_work, at_rest = [], []
    with servers.version(label, checkout, bench.home, "w64", flags=FLAGS) as server:
        server.rest()  # the process that waits for the next load is there from now on
        for number, requests in enumerate((EARLY, LATE - EARLY)):
            asked = texts(requests, f"memory {number}")
            asks = [
                chat(server.model("w64"), text, TOKENS, sampled=bool(row % 2), stream=bool(row % 3))
                for row, text in enumerate(asked)
            ]
            server.drive(Load(0, asks, at_once=AT_ONCE))
            at_work.append(server.resident())
            time.sleep(PAUSE_SECONDS)
            at_rest.append(server.resident())
    return {
        "early_at_work": at_work[0],
        "at_work": at_work[1],
        "early_at_rest": at_rest[0],
        "at_rest": at_rest[1],
    }


def _line(when: str, early: float, late: float, *, bar: float | None) -> Line:
    return Line(
        work=f"all processes {when} {LATE} requests",
        ours=late,
        other=early,
        unit="MiB",
        against=f"{when} {EARLY}",
        ratio=late / early,
        bar=bar,
        at_most=True,
    )
