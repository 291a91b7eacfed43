"""A model over two ranks, over the bare loop on as many: ``gpu:ranks`` for 8 billion weights on two GPUs.

``ranks:w64`` is the same on two processes of a CPU. The last lines are what each rank holds, over half of the layers
and the whole of the embedding and the output layer.
"""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec

from app.schemas.admin import AdminModels
from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.cases.concurrent import floor_rate
from benchmarks.lines import Child
from benchmarks.models import SHAPES
from benchmarks.report import Figures, Line, Runs
from benchmarks.servers import Server
from benchmarks.traffic import streams, summary, texts

RANKS = 2
ROWS = (1, 64)
TOKENS = 128
WARM_SECONDS = 60
"""After a start on GPUs, in which what few requests need is warmed up: the loop would be measured beside that."""


def run(bench: Bench, name: str = "8b") -> Iterator[Line]:
    bench.make(name)
    config = _config(bench.home, name)
    flags = ("--config", str(config))
    floor = Child("benchmarks.split", str(bench.home / name), str(RANKS), env=servers.environment())
    with servers.ours(bench.home, name, flags=flags) as server, floor:
        time.sleep(0 if name == "w64" else WARM_SECONDS)
        for rows in ROWS:
            yield _rows(server, floor, name, rows, bench.rounds)
        yield from _memory(server, name)


def _config(home: Path, name: str) -> Path:
    place = home / "ranks"
    place.mkdir(exist_ok=True)
    (place / "config.toml").write_text(f'default_model = "{name}"\n')
    (place / "models.toml").write_text(f'[models."{name}"]\nranks = {RANKS}\n')
    return place / "config.toml"


def _rows(server: Server, floor: Child, name: str, rows: int, rounds: int) -> Line:
    kind = "raw" if rows == 1 else "batch"
    ours = partial(_ours, server, name, rows)
    for tokens in (4, 16):
        floor.ask(kind=kind, texts=texts(rows, f"warm {tokens}"), tokens=tokens)
        ours(f"warm {tokens}", tokens=tokens)
    runs = Runs(rounds, {"floor": partial(_floor, floor, rows), "switchyard": ours})
    work = f"{name}, {RANKS} ranks: {rows} streams, greedy"
    return runs.line(work, "switchyard", "floor", "tokens_per_second", unit="tokens/s", bar=0.9)


def _ours(server: Server, name: str, rows: int, salt: object, tokens: int = TOKENS) -> Figures:
    return summary(server.drive(streams(server.model(name), rows, tokens, f"{salt} {rows}", whole=True)))


def _floor(floor: Child, rows: int, salt: object) -> Figures:
    if rows > 1:
        return floor_rate(floor, rows, TOKENS, salt)
    answer = floor.ask(kind="raw", texts=texts(1, salt), tokens=TOKENS)
    return {"tokens_per_second": answer["tokens"] / answer["seconds"]}


def _memory(server: Server, name: str) -> Iterator[Line]:
    """Live arrays of each rank at rest, KV caches among them."""
    shape = SHAPES[name]
    table = shape.vocabulary * shape.width
    attention = 2 * shape.width**2 + 2 * shape.width * shape.width * shape.kv_heads // shape.heads
    layers = shape.layers * (attention + 3 * shape.width * shape.hidden)
    wanted = (layers / RANKS + (1 if shape.tied else 2) * table) * (4 if shape.dtype == "float32" else 2)
    told = msgspec.json.decode(server.ask("GET", "/admin/models"), type=AdminModels).data
    (model,) = (it for it in told if it.id == name)
    for rank in model.ranks:
        ratio, mega = rank.active / wanted, 1e6
        yield Line(
            work=f"{name}, rank {rank.rank}: live arrays after it all",
            ours=rank.active / mega,
            other=wanted / mega,
            unit="MB",
            against="half of the layers, embedding and head",
            ratio=ratio,
            bar=None,
            at_most=True,
        )
