"""What the server's process holds after 5,000 requests, over what it held after 200.

It is read twice: straight after the last answer, when buffers are kept for reuse, and after a pause, in which the
service gives those back. Only the second tells a leak, and is judged. No prompt comes twice. The prefix cache is kept
so small that it is full after the first 200: filling it is no leak.
"""

import time
from collections.abc import Iterator

import psutil

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.client import Load
from benchmarks.report import Line
from benchmarks.traffic import chat, texts

EARLY, LATE = 200, 5000
AT_ONCE = 32
TOKENS = 8
FLAGS = ("--prefix-cache", "16MiB")
PAUSE_SECONDS = 3


def run(bench: Bench) -> Iterator[Line]:
    bench.make("w64")
    with servers.ours(bench.home, "w64", flags=FLAGS) as server:
        process = psutil.Process(server.pid)
        at_work, at_rest = [], []
        for number, requests in enumerate((EARLY, LATE - EARLY)):
            asked = texts(requests, f"memory {number}")
            asks = [
                chat(server.model("w64"), text, TOKENS, sampled=bool(row % 2), stream=bool(row % 3))
                for row, text in enumerate(asked)
            ]
            server.drive(Load(0, asks, at_once=AT_ONCE))
            at_work.append(process.memory_info().rss / 2**20)
            time.sleep(PAUSE_SECONDS)
            at_rest.append(process.memory_info().rss / 2**20)
    yield _line("straight after", *at_work, bar=None)
    yield _line(f"{PAUSE_SECONDS} s after", *at_rest, bar=1.03)


def _line(when: str, early: float, late: float, *, bar: float | None) -> Line:
    return Line(
        work=f"server process {when} {LATE} requests",
        ours=late,
        other=early,
        unit="MiB",
        against=f"{when} {EARLY}",
        ratio=late / early,
        bar=bar,
        at_most=True,
    )
