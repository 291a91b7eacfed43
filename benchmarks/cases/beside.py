"""Streams over mlx_lm.server, which runs beside the service and takes turns with it."""

from collections.abc import Iterator
from functools import partial

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server
from benchmarks.traffic import streams, summary


def run(bench: Bench) -> Iterator[Line]:
    bench.make("w64")
    yield from measure(bench, "w64", rows=16, tokens=128, greedy=3, sampled=4)


def measure(bench: Bench, name: str, *, rows: int, tokens: int, greedy: float, sampled: float) -> Iterator[Line]:
    """Greedy streams, then sampled ones, of one model; ``greedy`` and ``sampled`` are the bars."""
    with servers.ours(bench.home, name) as us, servers.theirs(bench.home, name) as them:
        for kind, bar in (("greedy", greedy), ("temperature 0.7 top_p 0.9", sampled)):
            yield compare(bench, us, them, name, rows=rows, tokens=tokens, kind=kind, bar=bar)


def compare(
    bench: Bench, us: Server, them: Server, name: str, *, rows: int, tokens: int, kind: str, bar: float | None
) -> Line:
    """One kind of streams on two servers in turns."""

    def run_on(server: Server, number: int) -> Figures:
        load = streams(server.model(name), rows, tokens, f"{kind} {rows} {number}", sampled=kind != "greedy")
        return summary(server.drive(load))

    contenders = {it.label: partial(run_on, it) for it in (us, them)}
    runs = Runs(bench.rounds, contenders)
    return runs.line(
        f"{name}: {rows} streams, {kind}", us.label, them.label, "tokens_per_second", unit="tokens/s", bar=bar
    )
