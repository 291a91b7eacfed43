"""How soon the command line answers, and how soon the service."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.report import Figures, Line, Runs
from benchmarks.versions import Row, lines

HELP, HEALTH = "--help", "the first answer of /health"


def run(bench: Bench) -> Iterator[Line]:
    times = max(5, bench.rounds)
    _help(servers.HERE)
    yield _line(HELP, [_help(servers.HERE) for _ in range(times)], 0.3)
    _health(servers.HERE)
    yield _line(HEALTH, [_health(servers.HERE) for _ in range(times)], 1.5)


def against(bench: Bench) -> Iterator[Line]:
    kinds = {HELP: _help, HEALTH: _health}
    contenders = {
        f"{label}, {kind}": partial(_seconds, start, checkout)
        for kind, start in kinds.items()
        for label, checkout in bench.versions.items()
    }
    for contender in contenders.values():
        contender(-1)
    rows = tuple(Row(kind, "seconds", f"start-up: {kind}", "s", time=True, bar=None) for kind in kinds)
    yield from lines(bench, Runs(max(5, bench.rounds), contenders), rows)


def _seconds(start: Callable[[Path], float], checkout: Path, _number: int) -> Figures:
    return {"seconds": start(checkout)}


def _line(what: str, seconds: list[float], allowed: float) -> Line:
    taken = median(seconds)
    return Line(
        work=f"start-up: {what}",
        ours=taken,
        other=allowed,
        unit="s",
        against="what is allowed",
        ratio=taken / allowed,
        bar=1,
        at_most=True,
    )


def _help(checkout: Path) -> float:
    env = servers.environment(computes=False)
    begun = time.perf_counter()
    command = [sys.executable, "-m", "app", "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=checkout, env=env)  # noqa: S603  our own program
    return time.perf_counter() - begun


def _health(checkout: Path) -> float:
    port = servers.free_port()
    env = servers.environment(computes=False)
    begun = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603  our own program
        [*servers.SERVE, "--port", str(port)],
        cwd=checkout,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not servers.is_healthy(port):
            if process.poll() is not None or time.perf_counter() - begun > 60:
                raise RuntimeError("the service did not start")
            time.sleep(0.01)
        return time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait(servers.STOP_SECONDS)
