"""Embeddings: texts of many lengths beside as many tokens in one length, streams beside them, and memory afterwards.

The model is a BERT of random weights, half as deep as all-MiniLM-L6-v2 and two thirds as wide. ``embed:lengths``,
``embed:beside`` and ``embed:memory`` are each a part of it.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from random import Random
from statistics import median

from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.client import Ask, Load
from benchmarks.report import Figures, Line, Runs, quartiles
from benchmarks.servers import Server
from benchmarks.traffic import gaps, seconds, streams

NAME = "bert-random"
TEXTS = 1000
LENGTHS = (4, 8, 14, 30, 64)
"""Words, each one token; a text has two tokens more."""
STREAMS, TOKENS = 4, 1200
AFTER = 1.0
"""Seconds for which the streams run alone."""
_MAKE = """
import sys
from pathlib import Path
from tests.support.encoders import add_modules, make_bert

sizes = {"hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 8, "intermediate_size": 1024}
made = make_bert(Path(sys.argv[1]), max_position_embeddings=512, **sizes)
add_modules(made, ("Pooling", {"word_embedding_dimension": 256, "pooling_mode_mean_tokens": True}))
"""


def run(bench: Bench, part: str = "") -> Iterator[Line]:
    if not (bench.home / NAME).exists():
        subprocess.run(  # noqa: S603  our own program
            [sys.executable, "-c", _MAKE, str(bench.home / NAME)], check=True, env=servers.environment()
        )
    bench.make("w64")
    if part in {"", "lengths"}:
        yield _lengths(bench)
    if part in {"", "beside"}:
        yield _beside(bench)
    if part in {"", "memory"}:
        yield _memory(bench)


def _embed(lengths: list[int], salt: object, *, after: float = 0.0) -> Ask:
    """A request for a text of so many words each."""
    random = Random(str(salt))
    words = ("fox", "dog", "cat", "query", "paris", "london", "quick", "brown", "yes", "no", "what", "where")
    texts = [" ".join(random.choices(words, k=size)) for size in lengths]
    return Ask("/v1/embeddings", {"model": NAME, "input": texts, "encoding_format": "base64"}, after)


def _mixed(count: int) -> list[int]:
    return [LENGTHS[at % len(LENGTHS)] for at in range(count)]


def _lengths(bench: Bench) -> Line:
    """Tokens per second of one request of texts of mixed lengths, and of one of as many tokens in equal lengths."""
    even = sum(LENGTHS) // len(LENGTHS)

    def rate(server: Server, lengths: list[int], number: int) -> Figures:
        (answer,) = server.drive(Load(0, [_embed(lengths, number)]))
        return {"tokens_per_second": answer.prompt / seconds([answer])}

    with servers.ours(bench.home) as server:
        rate(server, _mixed(20), -1)
        runs = Runs(
            bench.rounds,
            {
                "mixed": lambda n: rate(server, _mixed(TEXTS), n),
                "even": lambda n: rate(server, [even] * TEXTS, n),
            },
        )
    work = f"{TEXTS} texts of {min(LENGTHS)} to {max(LENGTHS)} words embedded, over {even} words each"
    return runs.line(work, "mixed", "even", "tokens_per_second", unit="tokens/s", bar=0.8)


def _beside(bench: Bench) -> Line:
    """The largest gap in a chat model's streams while texts are embedded, over that in as long a time before."""
    with servers.ours(bench.home, "w64") as server:

        def gap(number: int) -> Figures:
            load = streams("w64", STREAMS, TOKENS, f"embed {number}", whole=True)
            load.asks.append(_embed(_mixed(TEXTS // 5), number, after=AFTER))
            *running, embedded = server.drive(load)
            taken = embedded.ended - embedded.begun
            before = max(gap for it in running for gap in gaps(it, embedded.begun - taken, embedded.begun))
            beside = max(gap for it in running for gap in gaps(it, embedded.begun, embedded.ended))
            return {"alone_ms": before * 1e3, "beside_ms": beside * 1e3, "embed_s": taken}

        server.drive(Load(0, [_embed(_mixed(20), -1)]))
        runs = Runs(bench.rounds, {"gap": gap})
    ratios = sorted(it["beside_ms"] / it["alone_ms"] for it in runs.figures["gap"])
    return Line(
        work=f"w64: largest gap in {STREAMS} streams while {TEXTS // 5} texts are embedded",
        ours=runs.median("gap", "beside_ms"),
        other=runs.median("gap", "alone_ms"),
        unit="ms",
        against="before them",
        ratio=median(ratios),
        bar=3,
        at_most=True,
        rounds=len(ratios),
        spread=quartiles(ratios),
    )


def _memory(bench: Bench) -> Line:
    """All processes once the model was loaded, used and unloaded, after a second time over after the first."""
    held = []
    with servers.ours(bench.home) as server:
        for number in range(2):
            server.drive(Load(0, [_embed(_mixed(TEXTS // 5), number)]))
            server.ask("POST", f"/admin/models/{NAME}/unload")
            server.rest()
            held.append(server.resident())
            status = json.loads(server.ask("GET", "/admin/memory"))
    if status["active"]:
        raise RuntimeError(f"after the unload {status['active']} bytes are held")
    return Line(
        work="all processes after an embedding model was used and unloaded twice",
        ours=held[1],
        other=held[0],
        unit="MiB",
        against="once",
        ratio=held[1] / held[0],
        bar=1.02,
        at_most=True,
    )
