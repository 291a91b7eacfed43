"""What is held over what is booked, while the mixes run that a budget counted in tokens alone gets wrong.

Of a model of states alone as well, and with a budget in which not all prompts have room at once.

The service's own numbers are read all the while: live arrays over everything that is booked for arrays, KV caches as
laid out over those reserved, and for many small models the resident memory of their processes over the budget. And a
prompt of three tokens beside a list of 2,048 others, over its time alone and one slice.
"""

import shutil
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from benchmarks import servers, session_models
from benchmarks.bench import Bench
from benchmarks.client import Answer, Ask, Load
from benchmarks.report import Line
from benchmarks.servers import HERE, Server

MODEL, LARGE = "w64", "w64-large"
LONG, SHORT = 7800, 70
LIST = 2048
MANY, BUDGET = 30, 2 << 30
TIGHT = 320 << 20
"""A budget for one process and some 100 MB beside it, of which the rows want more."""
SLICE_SECONDS = 0.5
EVERY, TOLD = 0.02, 0.5
"""Seconds between two looks at the books, and how old what a process has told of its KV caches may be: what was booked
when it was told has been given back where a request has ended since.
"""


def run(bench: Bench, *parts: str) -> Iterator[Line]:
    """``books:mixes`` and ``books:many`` are each a part of it."""
    if "many" not in parts:
        yield from _mixes(bench)
        yield from _states(bench)
        yield from _tight(bench)
    if "mixes" not in parts:
        yield from _many(bench)


def _mixes(bench: Bench) -> Iterator[Line]:
    bench.make(MODEL)
    with servers.version("switchyard", HERE, bench.home, MODEL) as server:
        model = server.model(MODEL)
        mixes = {
            f"one prompt of {LONG} tokens beside 31 of {SHORT}": [LONG, *[SHORT] * 31],
            f"a prompt of {LONG} tokens, computed in slices": [LONG],
            "64 rows of 8 tokens": [8] * 64,
        }
        for work, lengths in mixes.items():
            with _watched(server) as seen:
                answers = server.drive(Load(0, [_asks(model, length, row) for row, length in enumerate(lengths)]))
            _check(answers)
            yield _line(f"arrays, {work}", seen["held"], seen["booked"], max(seen["ratios"]))
            yield _line(f"KV caches, {work}", seen["kv_held"], seen["kv"], max(seen["kv_ratios"]))
        yield _beside_a_list(server, model)


def _states(bench: Bench) -> Iterator[Line]:
    """Rows that hold no keys and values."""
    bench.make("mamba2")
    vocabulary = len(session_models.SPECIALS), len(session_models.CHARACTERS)
    with servers.version("switchyard", HERE, bench.home, "mamba2") as server, _watched(server) as seen:
        asks = [_asks(server.model("mamba2"), 8, row, vocabulary=vocabulary) for row in range(64)]
        _check(server.drive(Load(0, asks)))
    work = "64 rows of mamba2"
    yield _line(f"arrays, {work}", seen["held"], seen["booked"], max(seen["ratios"]))
    yield _line(f"KV caches, {work}", seen["kv_held"], seen["kv"], max(seen["kv_ratios"]))


def _tight(bench: Bench) -> Iterator[Line]:
    """One long and 60 short prompts that wait for each other's memory."""
    with servers.version("switchyard", HERE, bench.home, MODEL, flags=("--memory-budget", str(TIGHT))) as server:
        own = server.processes()[0].memory_info().rss
        with _watched(server) as seen:
            asks = [_asks(server.model(MODEL), length, row) for row, length in enumerate([LONG, *[SHORT] * 60])]
            _check(server.drive(Load(0, asks)))
    work = f"one prompt of {LONG} tokens beside 60 of {SHORT} in {TIGHT >> 20} MiB"
    held = max(process - own for process in seen["process"])
    yield _line(f"arrays, {work}", seen["held"], seen["booked"], max(seen["ratios"]))
    yield _line(f"KV caches, {work}", seen["kv_held"], seen["kv"], max(seen["kv_ratios"]))
    yield _line(f"processes, {work}", held, TIGHT, held / TIGHT)


def _asks(model: str, length: int, row: int, tokens: int = 48, vocabulary: tuple[int, int] = (100, 40_000)) -> Ask:
    first, count = vocabulary
    prompt = [first + (row * 7919 + i * 31) % count for i in range(length)]
    return Ask("/v1/completions", {"model": model, "prompt": prompt, "max_tokens": tokens, "stream": True})


def _beside_a_list(server: Server, model: str) -> Line:
    """A list is one request: whoever comes with a short prompt waits for a slice of it."""
    alone = _check(server.drive(Load(0, [_asks(model, 3, 1, 1)])))[0].ended
    prompts = [[100 + (row * 17 + i) % 40_000 for i in range(12)] for row in range(LIST)]
    many = Ask("/v1/completions", {"model": model, "prompt": prompts, "max_tokens": 1, "stream": True}, beside=0.0)
    short = _asks(model, 3, 2, 1)
    short.after = 1.0
    answers = _check(server.drive(Load(0, [many, short])))
    took = answers[1].ended - answers[1].begun
    return Line(
        work=f"a prompt of 3 tokens beside a list of {LIST}",
        ours=1000 * took,
        other=1000 * (3 * alone + SLICE_SECONDS),
        unit="ms",
        against="3 times its time alone and a slice",
        ratio=took / (3 * alone + SLICE_SECONDS),
        bar=1.0,
        at_most=True,
    )


def _many(bench: Bench) -> Iterator[Line]:
    """More models than there is room for, asked one after the other; every third has gpt-oss's tokenizer."""
    bench.make(MODEL, LARGE)
    root = bench.home / "many"
    names = [f"{'large' if number % 3 == 1 else 'small'}{number}" for number in range(MANY)]
    for name in names:
        if not (root / name).is_dir():
            shutil.copytree(bench.home / (LARGE if "large" in name else MODEL), root / name)
    with servers.version("switchyard", HERE, root, names[0], flags=("--memory-budget", str(BUDGET))) as server:
        own = server.processes()[0].memory_info().rss
        with _watched(server) as seen:
            for name in names:
                _check(server.drive(Load(0, [_asks(server.model(name), 20, 1, 4), _asks_for_json(server.model(name))])))
    held = max(process - own for process in seen["process"])
    yield _line(f"processes of {MANY} models with real tokenizers", held, BUDGET, held / BUDGET)
    yield _line(f"what is booked for {MANY} models", seen["most"], BUDGET, seen["most"] / BUDGET)


def _asks_for_json(model: str) -> Ask:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    told = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    messages = [{"role": "user", "content": "Name a city."}]
    body = {"model": model, "messages": messages, "response_format": told, "max_tokens": 8, "stream": True}
    return Ask("/v1/chat/completions", body)


@contextmanager
def _watched(server: Server) -> Iterator[dict[str, Any]]:
    """What is held and booked at every look."""
    seen: dict[str, Any] = {
        "ratios": [],
        "kv_ratios": [],
        "held": 0,
        "booked": 0,
        "kv_held": 0,
        "kv": 0,
        "process": [],
        "most": 0,
    }
    over, lately = threading.Event(), deque[int](maxlen=round(TOLD / EVERY))

    def look() -> None:
        while not over.wait(EVERY):
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/admin/memory", timeout=30) as answer:
                memory = msgspec.json.decode(answer.read())
            held = memory["active"] - memory["processes"]
            booked = sum(memory[name] for name in ("weights", "kv", "scratch", "prefix_caches"))
            seen["process"].append(memory["process"])
            seen["most"] = max(seen["most"], booked + memory["processes"])
            if booked:
                seen["ratios"].append(held / booked)
                seen["held"], seen["booked"] = max((seen["held"], seen["booked"]), (held, booked))
            lately.append(memory["kv"])
            if most := max(lately):
                seen["kv_ratios"].append(memory["kv_held"] / most)
                seen["kv_held"], seen["kv"] = max((seen["kv_held"], seen["kv"]), (memory["kv_held"], most))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _check(answers: list[Answer]) -> list[Answer]:
    for answer in answers:
        if answer.status != 200 or answer.error:
            raise RuntimeError(f"{answer.status}: {answer.error}")
    return answers


def _line(work: str, held: float, booked: float, ratio: float) -> Line:
    return Line(
        work=work,
        ours=held / 1e6,
        other=booked / 1e6,
        unit="MB",
        against="booked",
        ratio=ratio,
        bar=1.0,
        at_most=True,
    )
