"""How long four running streams stand still while a prompt of 3,000 tokens arrives."""

from collections.abc import Iterator
from functools import partial
from statistics import median

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server
from benchmarks.traffic import chat, gaps, streams
from benchmarks.versions import Row, compare

STREAMS = 4
PROMPT = 3000
STEPS = 3
MILLISECONDS = 100
TOKENS = 1200
AFTER = 1.0
"""Seconds for which the streams run alone."""


def run(bench: Bench) -> Iterator[Line]:
    bench.make("w64")
    yield from _measure(bench, "w64", tokens=TOKENS, after=AFTER)


def against(bench: Bench) -> Iterator[Line]:
    bench.make("w64")
    lengths: dict[str, int] = {}

    def measure(server: Server, number: int) -> Figures:
        if server.label not in lengths:
            lengths[server.label] = prompt_of(server, "w64", PROMPT)
        return _run_on(server, "w64", number, length=lengths[server.label], tokens=TOKENS, after=AFTER)

    rows = (
        Row("stall", "gap_ms", _work("w64"), "ms", time=True),
        Row(
            "stall", "long_ttft_ms", f"w64: that prompt's time to first text beside {STREAMS} streams", "ms", time=True
        ),
    )
    yield from compare(bench, ("w64",), {"stall": measure}, rows)


def _work(name: str) -> str:
    return f"{name}: largest gap in {STREAMS} streams, a {PROMPT}-token prompt arriving"


def _measure(bench: Bench, name: str, *, tokens: int, after: float) -> Iterator[Line]:
    with servers.ours(bench.home, name) as us, servers.theirs(bench.home, name) as them:
        length = prompt_of(us, name, PROMPT)
        runs = Runs(
            bench.rounds,
            {it.label: partial(_run_on, it, name, length=length, tokens=tokens, after=after) for it in (us, them)},
        )
    work = _work(name)
    allowed = max(MILLISECONDS, STEPS * runs.median(us.label, "step_ms"))
    ours, other = runs.median(us.label, "gap_ms"), runs.median(them.label, "gap_ms")
    detail = runs.line(work, us.label, them.label, "gap_ms", unit="ms", bar=None).detail
    yield Line(
        work=f"{work}, over the {allowed:.0f} ms allowed",
        ours=ours,
        other=other,
        unit="ms",
        against=them.label,
        ratio=ours / allowed,
        bar=1,
        at_most=True,
        detail=detail,
    )


def prompt_of(server: Server, name: str, tokens: int) -> int:
    """How often a sentence is repeated to make a prompt of ``tokens`` tokens, by the server's own count."""
    counts = []
    for times in (10, 20):
        asked = streams(server.model(name), 1, 1, "count")
        asked.asks = [chat(server.model(name), sentence("count", times), 1)]
        counts.append(server.drive(asked)[0].prompt)
    return round(10 + (tokens - counts[0]) * 10 / (counts[1] - counts[0]))


def sentence(salt: object, times: int) -> str:
    """A text that begins like no other."""
    return f"{salt}: " + "The dog barks at the fox in the evening. " * times


def _run_on(server: Server, name: str, number: int, *, length: int, tokens: int, after: float) -> Figures:
    model = server.model(name)
    load = streams(model, STREAMS, tokens, f"stall {number}")
    load.asks.append(chat(model, sentence(number, length), 4, after=after))
    *running, late = server.drive(load)
    if not all(answer.times[0] < late.begun and answer.ended > late.times[0] for answer in running):
        raise RuntimeError("the streams did not run while the long prompt was computed; measure with more tokens")
    before = [gap for answer in running for gap in gaps(answer, until=late.begun)]
    during = [gap for answer in running for gap in gaps(answer, late.begun, late.times[0] + 0.05)]
    return {
        "gap_ms": max(during) * 1e3,
        "step_ms": median(before) * 1e3,
        "prompt_tokens": late.prompt,
        "long_ttft_ms": late.first * 1e3,
    }
