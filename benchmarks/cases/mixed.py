"""64 streams behind prompts of 16 to 8,000 tokens over 64 streams behind as many tokens in equal lengths.

Prompts are computed before and found again, so that all streams decode at once; what is compared are the tokens that
come while none of them has ended, from the moment at which all have begun.
"""

from collections.abc import Iterator
from functools import partial

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.client import Answer, Ask, Load
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server

MODEL = "w64"
ROWS, TOKENS = 64, 160
SHORTEST, LONGEST = 16, 8000
BAR = 0.9
CONTEXT = 8192


def run(bench: Bench) -> Iterator[Line]:
    bench.make(MODEL)
    mixed = [round(SHORTEST * (LONGEST / SHORTEST) ** (row / (ROWS - 1))) for row in range(ROWS)]
    lengths = {"mixed lengths": mixed, "equal lengths": [sum(mixed) // ROWS] * ROWS}
    with servers.ours(bench.home, MODEL) as us:
        for kind, its in lengths.items():
            us.drive(_load(us, its, kind, 1))
        runs = Runs(bench.rounds, {kind: partial(_rate, us, its, kind) for kind, its in lengths.items()})
    work = f"{MODEL}: {ROWS} streams behind {SHORTEST} to {LONGEST} tokens"
    yield runs.line(work, "mixed lengths", "equal lengths", "tokens_per_second", unit="tokens/s", bar=BAR)


def _rate(server: Server, lengths: list[int], kind: str, _number: int) -> Figures:
    answers = server.drive(_load(server, lengths, kind, TOKENS))
    begun, ended = max(it.times[0] for it in answers), min(it.times[-1] for it in answers)
    return {"tokens_per_second": _between(answers, begun, ended) / (ended - begun)}


def _between(answers: list[Answer], begun: float, ended: float) -> int:
    return sum(begun < at <= ended for answer in answers for at in answer.times)


def _load(server: Server, lengths: list[int], kind: str, tokens: int) -> Load:
    def ask(row: int, length: int) -> Ask:
        prompt = [100 + (len(kind) * 101 + row * 7919 + i * 31) % 40_000 for i in range(length)]
        body = {"model": server.model(MODEL), "prompt": prompt, "max_tokens": min(tokens, CONTEXT - length)}
        return Ask("/v1/completions", body | {"temperature": 0, "stream": True})

    return Load(0, [ask(row, length) for row, length in enumerate(lengths)])
