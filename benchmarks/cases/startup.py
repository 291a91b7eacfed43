"""How soon the command line answers, and how soon the service."""

import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.report import Line


def run(bench: Bench) -> Iterator[Line]:
    times = max(5, bench.rounds)
    command = [sys.executable, "-m", "app"]
    yield _line("--help", [_help([*command, "--help"]) for _ in range(times)], 0.3)
    yield _line("the first answer of /health", [_health(command) for _ in range(times)], 1.5)


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


def _help(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  our own program
    return time.perf_counter() - begun


def _health(command: list[str]) -> float:
    port = servers.free_port()
    begun = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603  our own program
        [*command, "serve", "--offline", "--log-level", "error", "--port", str(port)],
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
