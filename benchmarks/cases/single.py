"""One stream at the client, over mlx-lm's ``stream_generate`` in its own process.

``single:w64`` and ``single:smollm2`` are each a part of it.
"""

from collections.abc import Iterator
from functools import partial

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server
from benchmarks.traffic import streams, summary, texts
from benchmarks.versions import Row, compare

TOKENS = {"w64": 128, "smollm2": 48}


def run(bench: Bench, part: str = "") -> Iterator[Line]:
    for shape in [part] if part else TOKENS:
        yield from _measure(bench, bench.directory(shape), TOKENS[shape])


def against(bench: Bench, part: str = "") -> Iterator[Line]:
    for shape in [part] if part else TOKENS:
        name = bench.directory(shape)
        row = Row("one", "tokens_per_second", f"{name}: single stream", "tokens/s")
        yield from compare(bench, (name,), {"one": partial(_stream, name=name, tokens=TOKENS[shape])}, (row,))


def _stream(server: Server, number: int, *, name: str, tokens: int) -> Figures:
    return summary(server.drive(streams(name, 1, tokens, number)))


def _measure(bench: Bench, name: str, tokens: int) -> Iterator[Line]:
    with servers.ours(bench.home, name) as server, bench.floor(name) as floor:

        def in_process(kind: str, number: int) -> Figures:
            answer = floor.ask(kind=kind, texts=texts(1, f"{name} {number}"), tokens=tokens)
            return {"tokens_per_second": answer["tokens"] / answer["seconds"]}

        in_process("lone", -1)
        runs = Runs(
            bench.rounds,
            {
                "switchyard": lambda n: _stream(server, n, name=name, tokens=tokens),
                "stream_generate": lambda n: in_process("lone", n),
                "floor, one row": lambda n: in_process("raw", n),
            },
        )
    figure, unit = "tokens_per_second", "tokens/s"
    yield runs.line(f"{name}: single stream", "switchyard", "stream_generate", figure, unit=unit, bar=0.95)
    yield runs.line(f"{name}: single stream", "switchyard", "floor, one row", figure, unit=unit, bar=None)
