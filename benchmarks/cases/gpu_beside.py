"""Streams on a GPU beside mlx_lm.server and the in-process loop, in turns: ``gpu_beside:8b`` is one shape of it."""

from collections.abc import Iterator

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.cases.concurrent import floor_rate
from benchmarks.lines import Child
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server
from benchmarks.traffic import streams, summary

SHAPES = ("135m", "8b")
ROWS = (64, 16)
TOKENS = 128
FIRST_TEXT_MS = 1000


def run(bench: Bench, *shapes: str) -> Iterator[Line]:
    for name in shapes or SHAPES:
        bench.make(name)
        yield from _measure(bench, name)


def _measure(bench: Bench, name: str) -> Iterator[Line]:
    home = bench.home
    with servers.ours(home, name) as us, servers.theirs(home, name) as them, bench.floor(name) as floor:
        for rows in ROWS:
            _warm_up(us, them, floor, name, rows)
            yield from _lines(_take_turns(us, them, floor, name, rows, rounds=bench.rounds), name, rows)


def _warm_up(us: Server, them: Server, floor: Child, name: str, rows: int) -> None:
    """Let the kernels for this many rows be compiled."""
    for server in (us, them):
        for sampled in (False, True):
            _run_on(server, name, rows, "warm", sampled=sampled, tokens=8)
    floor_rate(floor, rows, 8, "warm")


def _take_turns(us: Server, them: Server, floor: Child, name: str, rows: int, *, rounds: int) -> Runs:
    return Runs(
        rounds,
        {
            "floor": lambda n: floor_rate(floor, rows, TOKENS, n),
            "greedy": lambda n: _run_on(us, name, rows, f"greedy {n}"),
            "sampled": lambda n: _run_on(us, name, rows, f"sampled {n}", sampled=True),
            "mlx_lm.server greedy": lambda n: _run_on(them, name, rows, f"greedy {n}"),
            "mlx_lm.server sampled": lambda n: _run_on(them, name, rows, f"sampled {n}", sampled=True),
        },
    )


def _run_on(server: Server, name: str, rows: int, salt: str, *, sampled: bool = False, tokens: int = TOKENS) -> Figures:
    return summary(server.drive(streams(server.model(name), rows, tokens, f"{salt} {rows}", sampled=sampled)))


def _lines(runs: Runs, name: str, rows: int) -> Iterator[Line]:
    figure, unit, work = "tokens_per_second", "tokens/s", f"{name}: {rows} streams"
    beside = 5 if rows == max(ROWS) else None
    yield runs.line(f"{work}, greedy", "greedy", "mlx_lm.server greedy", figure, unit=unit, bar=beside)
    yield runs.line(f"{work}, sampled", "sampled", "mlx_lm.server sampled", figure, unit=unit, bar=beside)
    yield runs.line(f"{work}, greedy", "greedy", "floor", figure, unit=unit, bar=0.90)
    yield runs.line(f"{work}, sampled", "sampled", "greedy", figure, unit=unit, bar=0.85)
    for kind in ("greedy", "sampled"):
        p95 = runs.median(kind, "ttft_p95_ms")
        yield Line(
            work=f"{work}, {kind}: time to first text p95, over {FIRST_TEXT_MS} ms",
            ours=p95,
            other=runs.median(f"mlx_lm.server {kind}", "ttft_p95_ms"),
            unit="ms",
            against="mlx_lm.server",
            ratio=p95 / FIRST_TEXT_MS,
            bar=1 if rows == max(ROWS) else None,
            at_most=True,
        )
