"""The comparisons with mlx_lm.server once more, with a real model, whose own time weighs most."""

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.cases import beside, short
from benchmarks.report import Line


def run(bench: Bench) -> Iterator[Line]:
    name = bench.smollm2()
    yield from beside.measure(bench, name, rows=16, tokens=48, greedy=1.05, sampled=1.5)
    yield from short.measure(bench, name, bar=1.3)
