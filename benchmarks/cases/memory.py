"""What the server's process holds after 5,000 requests, over what it held after 200.

No prompt comes twice. The prefix cache is kept so small that it is full after the first 200: filling it is no leak.
"""

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


def run(bench: Bench) -> Iterator[Line]:
    bench.make("w64")
    with servers.ours(bench.home, "w64", flags=FLAGS) as server:
        process = psutil.Process(server.pid)
        held = []
        for number, requests in enumerate((EARLY, LATE - EARLY)):
            asked = texts(requests, f"memory {number}")
            asks = [
                chat(server.model("w64"), text, TOKENS, sampled=bool(row % 2), stream=bool(row % 3))
                for row, text in enumerate(asked)
            ]
            server.drive(Load(0, asks, at_once=AT_ONCE))
            held.append(process.memory_info().rss / 2**20)
    early, late = held
    yield Line(
        work=f"server process after {LATE} requests",
        ours=late,
        other=early,
        unit="MiB",
        against=f"after {EARLY} requests",
        ratio=late / early,
        bar=1.03,
        at_most=True,
    )
