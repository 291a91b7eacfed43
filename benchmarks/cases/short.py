"""64 short answers asked for at once, over mlx_lm.server."""

from collections.abc import Iterator

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.client import Load
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server
from benchmarks.traffic import chat, seconds, texts

REQUESTS = 64
TOKENS = 8


def run(bench: Bench) -> Iterator[Line]:
    bench.make("w64")
    yield from measure(bench, "w64", bar=10)


def measure(bench: Bench, name: str, *, bar: float) -> Iterator[Line]:
    """Whole answers, not streams; what counts is how many are answered in a second."""

    def run_on(server: Server, number: int) -> Figures:
        asked = texts(REQUESTS, f"short {number}")
        load = Load(0, [chat(server.model(name), text, TOKENS, stream=False) for text in asked])
        return {"requests_per_second": REQUESTS / seconds(server.drive(load))}

    with servers.ours(bench.home, name) as us, servers.theirs(bench.home, name) as them:
        runs = Runs(bench.rounds, {it.label: lambda n, it=it: run_on(it, n) for it in (us, them)})
    work = f"{name}: {REQUESTS} answers of {TOKENS} tokens"
    yield runs.line(work, us.label, them.label, "requests_per_second", unit="req/s", bar=bar)
