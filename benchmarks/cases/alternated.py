"""Two models asked for in turns, one request after the other, both in memory."""

from collections.abc import Iterator

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.client import Load
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server
from benchmarks.traffic import chat, first_text, seconds, texts
from benchmarks.versions import Row, compare

REQUESTS = 12
TOKENS = 32
MODELS = ("w64", "w64-other")


def run(bench: Bench) -> Iterator[Line]:
    bench.make(*MODELS)
    with servers.ours(bench.home, *MODELS) as us, servers.theirs(bench.home, *MODELS) as them:
        runs = Runs(
            bench.rounds,
            {
                us.label: lambda n: _ask(us, MODELS, n),
                them.label: lambda n: _ask(them, MODELS, n),
                "one model": lambda n: _ask(us, MODELS[:1], n + 100),
            },
        )
    work = "two models alternated, time to first text"
    yield runs.line(work, us.label, them.label, "ttft_p50_ms", unit="ms", bar=10, inverse=True)
    work = "two models alternated, time per request"
    yield runs.line(work, us.label, "one model", "request_ms", unit="ms", bar=1.1, at_most=True)


def against(bench: Bench) -> Iterator[Line]:
    bench.make(*MODELS)
    rows = (
        Row("in turns", "ttft_p50_ms", "two models alternated, time to first text", "ms", time=True),
        Row("in turns", "request_ms", "two models alternated, time per request", "ms", time=True),
    )
    yield from compare(bench, MODELS, {"in turns": lambda server, n: _ask(server, MODELS, n)}, rows)


def _ask(server: Server, models: tuple[str, ...], salt: int) -> Figures:
    asks = [chat(server.model(models[i % len(models)]), text, TOKENS) for i, text in enumerate(texts(REQUESTS, salt))]
    answers = server.drive(Load(0, asks, at_once=1))
    return {"ttft_p50_ms": first_text(answers, 0.5) * 1e3, "request_ms": seconds(answers) / REQUESTS * 1e3}
