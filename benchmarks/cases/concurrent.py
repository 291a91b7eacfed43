"""Many streams at once: greedy over the best in-process loop, and sampled, each with its own seed, over greedy."""

from collections.abc import Iterator
from functools import partial

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.lines import Child
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server
from benchmarks.traffic import streams, summary, texts
from benchmarks.versions import Row, compare

ROWS = (16, 64)
SAMPLED = "temperature 0.7 top_p 0.9, own seeds"


def run(bench: Bench) -> Iterator[Line]:
    bench.make("w64", "w64-flat")
    yield from measure(bench, "w64", 128, ROWS)
    yield from measure(bench, "w64-flat", 128, ROWS, greedy=False)
    yield from measure(bench, bench.smollm2(), 32, (16,))


def against(bench: Bench) -> Iterator[Line]:
    bench.make("w64", "w64-flat")
    kinds = {"greedy": False, SAMPLED: True}
    for name, tokens, rows in (("w64", 128, ROWS), ("w64-flat", 128, ROWS), (bench.smollm2(), 32, (16,))):
        for count in rows:
            chosen = [kind for kind in kinds if kinds[kind] or name != "w64-flat"]
            yield from compare(
                bench,
                (name,),
                {it: partial(_streams, name=name, rows=count, tokens=tokens, sampled=kinds[it]) for it in chosen},
                tuple(Row(it, "tokens_per_second", f"{name}: {count} streams, {it}", "tokens/s") for it in chosen),
            )


def measure(bench: Bench, name: str, tokens: int, rows: tuple[int, ...], *, greedy: bool = True) -> Iterator[Line]:
    """The lines of one model; without ``greedy`` that of sampling alone."""
    with servers.ours(bench.home, name) as server, bench.floor(name) as floor:
        for count in rows:
            yield from _rows(server, floor, rounds=bench.rounds, name=name, rows=count, tokens=tokens, greedy=greedy)


def _rows(
    server: Server, floor: Child, *, rounds: int, name: str, rows: int, tokens: int, greedy: bool
) -> Iterator[Line]:
    ours = partial(_streams, server, name=name, rows=rows, tokens=tokens)
    floor.ask(kind="batch", texts=texts(rows, "warm"), tokens=4)
    ours("warm", sampled=True)
    runs = Runs(
        rounds,
        {
            "floor": lambda n: floor_rate(floor, rows, tokens, n),
            "greedy": lambda n: ours(n, sampled=False),
            "sampled": lambda n: ours(n, sampled=True),
        },
    )
    figure, unit = "tokens_per_second", "tokens/s"
    if greedy:
        yield runs.line(f"{name}: {rows} streams, greedy", "greedy", "floor", figure, unit=unit, bar=0.90)
    work = f"{name}: {rows} streams, {SAMPLED}"
    yield runs.line(work, "sampled", "greedy", figure, unit=unit, bar=0.85)


def _streams(server: Server, salt: object, *, name: str, rows: int, tokens: int, sampled: bool) -> Figures:
    kind = "sampled" if sampled else "greedy"
    load = streams(server.model(name), rows, tokens, f"{kind} {salt}", sampled=sampled, seeded=sampled, whole=True)
    return summary(server.drive(load))


def floor_rate(floor: Child, rows: int, tokens: int, salt: object) -> Figures:
    """The in-process loop over the same prompts."""
    answer = floor.ask(kind="batch", texts=texts(rows, salt), tokens=tokens)
    return {"tokens_per_second": answer["tokens"] / answer["seconds"]}
