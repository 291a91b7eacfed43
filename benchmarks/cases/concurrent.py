"""Many streams at once: greedy over the best in-process loop, and sampled, each with its own seed, over greedy.

``concurrent:w64``, ``concurrent:w64-flat`` and ``concurrent:smollm2`` are each a part of it.
"""

from collections.abc import Iterator
from functools import partial

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.lines import Child
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server
from benchmarks.traffic import streams, summary, texts
from benchmarks.versions import Row, compare

TOKENS = {"w64": 128, "w64-flat": 128, "smollm2": 32}
ROWS = {"w64": (16, 64), "w64-flat": (16, 64), "smollm2": (16,)}
SAMPLED = "temperature 0.7 top_p 0.9, own seeds"


def run(bench: Bench, part: str = "") -> Iterator[Line]:
    for shape in [part] if part else TOKENS:
        name = bench.directory(shape)
        with servers.ours(bench.home, name) as server, bench.floor(name) as floor:
            for rows in ROWS[shape]:
                yield from _rows(
                    server,
                    floor,
                    rounds=bench.rounds,
                    name=name,
                    rows=rows,
                    tokens=TOKENS[shape],
                    greedy=shape != "w64-flat",
                )


def against(bench: Bench, part: str = "") -> Iterator[Line]:
    for shape in [part] if part else TOKENS:
        name, tokens = bench.directory(shape), TOKENS[shape]
        kinds = {"greedy": False, SAMPLED: True} if shape != "w64-flat" else {SAMPLED: True}
        for rows in ROWS[shape]:
            yield from compare(
                bench,
                (name,),
                {kind: partial(_streams, name=name, rows=rows, tokens=tokens, sampled=kinds[kind]) for kind in kinds},
                tuple(Row(kind, "tokens_per_second", f"{name}: {rows} streams, {kind}", "tokens/s") for kind in kinds),
            )


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
        yield runs.line(f"{name}: {rows} streams, greedy", "greedy", "floor", figure, unit=unit, bar=0.95)
    work = f"{name}: {rows} streams, {SAMPLED}"
    yield runs.line(work, "sampled", "greedy", figure, unit=unit, bar=0.9)


def _streams(server: Server, salt: object, *, name: str, rows: int, tokens: int, sampled: bool) -> Figures:
    kind = "sampled" if sampled else "greedy"
    load = streams(server.model(name), rows, tokens, f"{kind} {salt}", sampled=sampled, seeded=sampled, whole=True)
    return summary(server.drive(load))


def floor_rate(floor: Child, rows: int, tokens: int, salt: object) -> Figures:
    """The in-process loop over the same prompts."""
    answer = floor.ask(kind="batch", texts=texts(rows, salt), tokens=tokens)
    return {"tokens_per_second": answer["tokens"] / answer["seconds"]}
