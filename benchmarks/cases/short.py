"""64 short answers asked for at once, over mlx_lm.server."""

from collections.abc import Iterator
from functools import partial

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.client import Load
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server
from benchmarks.traffic import chat, seconds, texts
from benchmarks.versions import Row, compare

REQUESTS = 64
TOKENS = 8


def run(bench: Bench) -> Iterator[Line]:
    bench.make("w64")
    yield from measure(bench, "w64", bar=10)


def against(bench: Bench) -> Iterator[Line]:
    bench.make("w64")
    row = Row("short", "requests_per_second", _work("w64"), "req/s")
    yield from compare(bench, ("w64",), {"short": partial(_run_on, name="w64")}, (row,))


def measure(bench: Bench, name: str, *, bar: float) -> Iterator[Line]:
    """Whole answers, not streams; what counts is how many are answered in a second."""
    with servers.ours(bench.home, name) as us, servers.theirs(bench.home, name) as them:
        runs = Runs(bench.rounds, {it.label: partial(_run_on, it, name=name) for it in (us, them)})
    yield runs.line(_work(name), us.label, them.label, "requests_per_second", unit="req/s", bar=bar)


def _work(name: str) -> str:
    return f"{name}: {REQUESTS} answers of {TOKENS} tokens"


def _run_on(server: Server, number: int, *, name: str) -> Figures:
    asked = texts(REQUESTS, f"short {number}")
    load = Load(0, [chat(server.model(name), text, TOKENS, stream=False) for text in asked])
    return {"requests_per_second": REQUESTS / seconds(server.drive(load))}
