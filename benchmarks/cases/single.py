"""One stream at the client, over mlx-lm's ``stream_generate`` in its own process."""

from collections.abc import Iterator

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.report import Line, Runs
from benchmarks.traffic import streams, summary, texts


def run(bench: Bench) -> Iterator[Line]:
    bench.make("w64")
    yield from _measure(bench, "w64", 128)
    yield from _measure(bench, bench.smollm2(), 48)


def _measure(bench: Bench, name: str, tokens: int) -> Iterator[Line]:
    with servers.ours(bench.home, name) as server, bench.floor(name) as floor:

        def in_process(kind: str, number: int):
            answer = floor.ask(kind=kind, texts=texts(1, f"{name} {number}"), tokens=tokens)
            return {"tokens_per_second": answer["tokens"] / answer["seconds"]}

        in_process("lone", -1)
        runs = Runs(
            bench.rounds,
            {
                "switchyard": lambda n: summary(server.drive(streams(name, 1, tokens, n))),
                "stream_generate": lambda n: in_process("lone", n),
                "floor, one row": lambda n: in_process("raw", n),
            },
        )
    figure, unit = "tokens_per_second", "tokens/s"
    yield runs.line(f"{name}: single stream", "switchyard", "stream_generate", figure, unit=unit, bar=0.95)
    yield runs.line(f"{name}: single stream", "switchyard", "floor, one row", figure, unit=unit, bar=None)
