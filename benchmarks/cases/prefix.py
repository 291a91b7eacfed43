"""What a shared system prompt of 1,500 tokens costs the second request that has it, after the first or beside it."""

from collections.abc import Iterator

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.cases.stall import prompt_of, sentence
from benchmarks.client import Load
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server
from benchmarks.traffic import chat

PROMPT = 1500


def run(bench: Bench) -> Iterator[Line]:
    bench.make("w64")
    yield from _measure(bench, "w64", tokens=8)
    yield from _measure(bench, bench.smollm2(), tokens=2)


def _measure(bench: Bench, name: str, *, tokens: int) -> Iterator[Line]:
    with servers.ours(bench.home, name) as server:
        length = prompt_of(server, name, PROMPT)
        runs = Runs(
            bench.rounds,
            {
                "in turn": lambda n: _ask(server, name, f"turn {n}", length, tokens, at_once=1),
                "together": lambda n: _ask(server, name, f"beside {n}", length, tokens, at_once=2),
            },
        )
    for kind in ("in turn", "together"):
        first, second = runs.median(kind, "first_ms"), runs.median(kind, "second_ms")
        yield Line(
            work=f"{name}: {PROMPT}-token system prompt, two requests {kind}",
            ours=second,
            other=first,
            unit="ms",
            against="the first request" if kind == "in turn" else "the first alone",
            ratio=runs.median(kind, "ratio"),
            bar=0.15 if kind == "in turn" else None,
            at_most=True,
            detail={kind: {figure: runs.median(kind, figure) for figure in runs.figures[kind][0]}},
        )


def _ask(server: Server, name: str, salt: str, length: int, tokens: int, *, at_once: int) -> Figures:
    """Two requests that share their system prompt; together, the later of the two is told as the second."""
    system = sentence(salt, length)
    asks = [chat(server.model(name), f"Question {i}?", tokens, system=system) for i in range(2)]
    first, second = sorted(server.drive(Load(0, asks, at_once=at_once)), key=lambda answer: answer.first)
    if at_once == 1:
        first, second = sorted((first, second), key=lambda answer: answer.begun)
    computed = first.prompt + second.prompt - first.cached - second.cached
    return {
        "first_ms": first.first * 1e3,
        "second_ms": second.first * 1e3,
        "ratio": second.first / first.first,
        "cached_tokens": second.cached,
        "computed_tokens": computed,
    }
