"""Streams on a GPU over the lean loop and over what the GPU could do, and what two starts take.

``gpu:8b`` and ``gpu:135m`` are each a part of it. The kernels of the first start are compiled anew, those of the second
are kept. The loop's rate is that of its steps alone; the limit is measured where PyTorch is installed.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from tempfile import TemporaryDirectory

from benchmarks import limit, servers
from benchmarks.bench import Bench
from benchmarks.cases import ranks
from benchmarks.client import Load
from benchmarks.lines import Child
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server
from benchmarks.traffic import chat, streams, summary, texts

SHAPES = ("135m", "8b")
TOKENS = 128
OVER_LOOP = {"8b": {1: 0.97, 16: 0.92, 64: 0.92}, "135m": {64: 0.8}}
ROWS = (1, 16, 64)
SAMPLED_BAR, LIMIT_BAR = 0.95, 0.55
FIRST_TEXT_MS = 150
START_SECONDS = (20, 8)
WARM_SECONDS = 15
"""After a start, in which what few requests need is warmed up: the loop would be measured beside that."""
LONG = "Say yes. " * 330
"""A thousand tokens, about."""


def run(bench: Bench, *shapes: str) -> Iterator[Line]:
    if "ranks" in shapes:
        yield from ranks.run(bench)
        return
    for name in shapes or SHAPES:
        bench.make(name)
        with TemporaryDirectory() as cache:
            before = os.environ.get("XDG_CACHE_HOME")
            os.environ["XDG_CACHE_HOME"] = cache
            yield from _starts(bench, name)
            with servers.ours(bench.home, name) as us, bench.floor(name) as loop:
                time.sleep(WARM_SECONDS)
                runs = {rows: _take_turns(us, loop, name, rows, bench.rounds) for rows in ROWS}
                yield _prefill(us, loop, name, bench.rounds)
            if before is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = before
        for rows in ROWS:
            yield from _lines(runs[rows], name, rows)
        if limit.available():
            yield _over_limit(runs[max(ROWS)], name)


def _starts(bench: Bench, name: str) -> Iterator[Line]:
    """From the start of the service to the first token of its first request."""
    for which, most in zip(("first", "second"), START_SECONDS, strict=True):
        begun = time.monotonic()
        with servers.ours(bench.home) as us:
            us.drive(Load(0, [chat(us.model(name), "Hello.", 1)]))
            seconds = time.monotonic() - begun
        yield Line(
            work=f"{name}: {which} start to first token, over {most} s",
            ours=seconds,
            other=most,
            unit="s",
            against="bar",
            ratio=seconds / most,
            bar=1 if name == "8b" else None,
            at_most=True,
        )


def _take_turns(us: Server, loop: Child, name: str, rows: int, rounds: int) -> Runs:
    loop_rate(loop, rows, 8, "warm")
    return Runs(
        rounds,
        {
            "greedy": lambda n: _run_on(us, name, rows, f"greedy {n}"),
            "sampled": lambda n: _run_on(us, name, rows, f"sampled {n}", sampled=True),
            "loop": lambda n: loop_rate(loop, rows, TOKENS, n),
        },
    )


def loop_rate(loop: Child, rows: int, tokens: int, salt: object) -> Figures:
    """The in-process loop's steps; one row in plain caches."""
    answer = loop.ask(kind="batch" if rows > 1 else "raw", texts=texts(rows, salt), tokens=tokens)
    return {"tokens_per_second": answer["tokens"] / answer["decoding"]}


def _run_on(server: Server, name: str, rows: int, salt: str, *, sampled: bool = False) -> Figures:
    return summary(server.drive(streams(server.model(name), rows, TOKENS, f"{salt} {rows}", sampled=sampled)))


def _lines(runs: Runs, name: str, rows: int) -> Iterator[Line]:
    figure, unit, work = "tokens_per_second", "tokens/s", f"{name}: {rows} streams"
    yield runs.line(f"{work}, greedy", "greedy", "loop", figure, unit=unit, bar=OVER_LOOP[name].get(rows))
    yield runs.line(f"{work}, sampled", "sampled", "greedy", figure, unit=unit, bar=SAMPLED_BAR)
    p95 = runs.median("greedy", "ttft_p95_ms")
    yield Line(
        work=f"{work}: time to first text p95, over {FIRST_TEXT_MS} ms",
        ours=p95,
        other=FIRST_TEXT_MS,
        unit="ms",
        against="bar",
        ratio=p95 / FIRST_TEXT_MS,
        bar=1 if (name, rows) == ("8b", max(ROWS)) else None,
        at_most=True,
    )


def _prefill(us: Server, loop: Child, name: str, rounds: int) -> Line:
    """The most prompts of a thousand tokens at once, for one token each."""
    rows = max(ROWS)

    def ours(salt: object) -> Figures:
        answers = us.drive(Load(0, [chat(us.model(name), text, 1) for text in prompts(f"our {salt}")]))
        seconds = max(it.ended for it in answers) - min(it.begun for it in answers)
        return {"tokens_per_second": sum(it.prompt for it in answers) / seconds}

    def theirs(salt: object) -> Figures:
        answer = loop.ask(kind="prefill", texts=prompts(f"its {salt}"), tokens=1)
        return {"tokens_per_second": answer["tokens"] / answer["seconds"]}

    def prompts(salt: str) -> list[str]:
        return [f"{salt}.{row} {LONG}" for row in range(rows)]

    runs = Runs(rounds, {"ours": ours, "loop": theirs})
    work = f"{name}: {rows} prompts of 1,000 tokens"
    return runs.line(work, "ours", "loop", "tokens_per_second", unit="tokens/s", bar=None)


def _over_limit(runs: Runs, name: str) -> Line:
    with ExitStack() as stack:
        child = stack.enter_context(Child("benchmarks.limit", name, env=servers.environment()))
        most = child.ask(rows=max(ROWS))["tokens_per_second"]
    ours = runs.median("greedy", "tokens_per_second")
    return Line(
        work=f"{name}: {max(ROWS)} streams, greedy",
        ours=ours,
        other=most,
        unit="tokens/s",
        against="limit (a CUDA graph in PyTorch)",
        ratio=ours / most,
        bar=LIMIT_BAR if name == "8b" else None,
    )
