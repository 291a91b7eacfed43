"""Two models on one device: streams beside streams, a short request beside a long prompt, a stream beside a load.

``two:streams``, ``two:prompt`` and ``two:load`` are each a part of it.
"""

from collections.abc import Iterator
from statistics import median

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.cases.stall import prompt_of, sentence
from benchmarks.client import Answer, Load
from benchmarks.report import Figures, Line, Runs, quartiles
from benchmarks.servers import Server
from benchmarks.traffic import chat, gaps, streams

PAIRS = (("w64", "w64-other", 1, 384), ("w64", "w64-other", 8, 192), ("smollm2", "135m", 1, 24))
"""Two models, streams of each, tokens of a stream."""
SHARE = 0.5
"""What each model keeps of its own speed at the least: half of the machine."""
PROMPT = 1250
ALLOWED_SECONDS = 1.0
LARGE = ("w64-large", "w64-large-other")
"""They take turns, so that no process has read the tokenizer of the one that is loaded."""
ALONE_SECONDS = 2.5
STREAM_TOKENS = 7500
"""More than it comes to."""
AFTERMATH_SECONDS = 4.0
"""In which a process is started for the next load; a stream's gaps in it are told, not judged."""


def run(bench: Bench, part: str = "") -> Iterator[Line]:
    if part in {"", "streams"}:
        for first, second, rows, tokens in PAIRS:
            yield from _at_once(bench, bench.directory(first), bench.directory(second), rows, tokens)
    if part in {"", "prompt"}:
        yield from _beside_a_prompt(bench, bench.directory("w64"), bench.directory("smollm2"))
    if part in {"", "load"}:
        bench.make(*LARGE)
        yield from _beside_a_load(bench, bench.directory("w64"))


def _at_once(bench: Bench, first: str, second: str, rows: int, tokens: int) -> Iterator[Line]:
    """Each model's streams while the other's run, over alone."""

    def asked(server: Server, names: tuple[str, ...], number: int) -> dict[str, list[Answer]]:
        loads = [streams(name, rows, tokens, f"{name} {len(names)} {number}", whole=True) for name in names]
        answers = server.drive(Load(0, [ask for load in loads for ask in load.asks]))
        return {name: answers[at * rows : (at + 1) * rows] for at, name in enumerate(names)}

    with servers.ours(bench.home, first, second) as server:
        asked(server, (first, second), -1)
        runs = Runs(
            bench.rounds,
            {
                first: lambda n: _rates(asked(server, (first,), n)),
                second: lambda n: _rates(asked(server, (second,), n)),
                "both": lambda n: _rates(asked(server, (first, second), n)),
            },
        )
    for name, other in ((first, second), (second, first)):
        yield runs.line(
            f"{name}: {rows} streams beside {rows} of {other}", "both", name, name, unit="tokens/s", bar=SHARE
        )


def _rates(answers: dict[str, list[Answer]]) -> Figures:
    """Tokens per second of each model, from when every stream has begun until the first one ends."""
    streams_ = [answer for of_one in answers.values() for answer in of_one]
    begun, ended = max(it.times[0] for it in streams_), min(it.times[-1] for it in streams_)
    if ended <= begun:
        raise RuntimeError("the streams did not run at once; measure with more tokens")
    return {name: sum(_tokens(it, begun, ended) for it in of_one) / (ended - begun) for name, of_one in answers.items()}


def _tokens(answer: Answer, begun: float, ended: float) -> float:
    """How many came in a window; a piece of text may hold several."""
    return sum(begun < when <= ended for when in answer.times) * answer.tokens / len(answer.times)


def _beside_a_prompt(bench: Bench, short: str, long: str) -> Iterator[Line]:
    """Two tokens of one model, asked for while another computes a long prompt."""
    with servers.ours(bench.home, short, long) as server:
        length = prompt_of(server, long, PROMPT)

        def beside(number: int) -> Figures:
            computing, answer = server.drive(
                Load(
                    0,
                    [
                        chat(long, sentence(f"long {number}", length), 2, beside=0.0),
                        chat(short, f"short {number}", 2, after=1.0),
                    ],
                )
            )
            if computing.times:
                raise RuntimeError("the long prompt was over before the short answer; measure with a longer one")
            server.rest()
            return {"ms": (answer.ended - answer.begun) * 1e3}

        def alone(number: int) -> Figures:
            (answer,) = server.drive(Load(0, [chat(short, f"alone {number}", 2)]))
            return {"ms": (answer.ended - answer.begun) * 1e3}

        runs = Runs(bench.rounds, {"beside": beside, "alone": alone})
    line = runs.line(
        f"{short}: 2 tokens beside a {PROMPT}-token prompt of {long}, over {ALLOWED_SECONDS:g} s",
        *("beside", "alone", "ms"),
        unit="ms",
        bar=1,
        at_most=True,
    )
    ratios = sorted(it["ms"] / ALLOWED_SECONDS / 1e3 for it in runs.figures["beside"])
    line.ratio, line.spread = median(ratios), quartiles(ratios)
    yield line


def _beside_a_load(bench: Bench, name: str) -> Iterator[Line]:
    """The largest gap of a stream while another model is loaded, over that in as long a time before."""
    with servers.ours(bench.home, name) as server:

        def loading(number: int) -> Figures:
            server.rest()
            large = LARGE[number % len(LARGE)]
            asks = [
                chat(name, f"Load {number}.", STREAM_TOKENS, whole=True, beside=AFTERMATH_SECONDS),
                chat(large, "Hello", 1, after=ALONE_SECONDS),
            ]
            running, loaded = server.drive(Load(0, asks))
            server.ask("POST", f"/admin/models/{large}/unload")
            if running.tokens:
                raise RuntimeError("the stream was over before the load; measure with more tokens")
            taken = loaded.ended - loaded.begun
            alone = gaps(running, max(running.times[0], loaded.begun - taken), loaded.begun)
            during = gaps(running, loaded.begun, loaded.ended)
            later = gaps(running, loaded.ended, loaded.ended + AFTERMATH_SECONDS)
            return {
                "alone_ms": max(alone) * 1e3,
                "during_ms": max(during) * 1e3,
                "later_ms": max(later, default=0.0) * 1e3,
                "load_s": taken,
                "p50_alone_ms": median(alone) * 1e3,
                "p50_during_ms": median(during) * 1e3,
            }

        loading(-1)
        runs = Runs(bench.rounds, {"loading": loading})
    for when, bar in (("during", 2), ("later", None)):
        ratios = sorted(it[f"{when}_ms"] / it["alone_ms"] for it in runs.figures["loading"])
        span = "while" if when == "during" else f"in {AFTERMATH_SECONDS:g} s after"
        yield Line(
            work=f"{name}: largest gap of a stream {span} {LARGE[0]} loads",
            ours=runs.median("loading", f"{when}_ms"),
            other=runs.median("loading", "alone_ms"),
            unit="ms",
            against="before the load",
            ratio=median(ratios),
            bar=bar,
            at_most=True,
            rounds=len(ratios),
            spread=quartiles(ratios),
            detail={"loading": {figure: runs.median("loading", figure) for figure in runs.figures["loading"][0]}},
        )
