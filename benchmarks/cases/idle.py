"""What the process of a small model holds for itself at rest, over what its weights and libraries take anywhere."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

from app.schemas.admin import AdminModels
from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.report import Line
from benchmarks.traffic import streams

ALLOWED = 40 * 10**6
IDLE_SECONDS = 11.0
"""After which a model is idle: what it keeps for reuse has gone back by then."""
MODELS = ("w64", "w64-large")
_BARE = """
import ctypes, gc, sys
import mlx_lm

def wait():
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    print(flush=True)
    input()

wait()
kept = mlx_lm.utils.load_tokenizer(sys.argv[1])
wait()
"""
"""What is free goes back to the system before it is measured, as it does in the service."""


def run(bench: Bench) -> Iterator[Line]:
    bench.make(*MODELS)
    for name in MODELS:
        yield _measure(bench, name)


def _measure(bench: Bench, name: str) -> Line:
    imported, tokenizer = _bare(bench.home / name)
    with servers.ours(bench.home, name) as server:
        server.drive(streams(name, 4, 32, "idle"))
        server.rest()
        time.sleep(IDLE_SECONDS)
        listed = msgspec.json.decode(server.ask("GET", "/admin/models"), type=AdminModels)
        model = next(it for it in listed.data if it.id == name)
        private = psutil.Process(model.pid).memory_full_info().uss
    allowed = imported + tokenizer + model.nbytes
    return Line(
        work=f"{name}: an idle process's private memory, over {ALLOWED / 1e6:g} MB beyond what it needs",
        ours=private / 1e6,
        other=allowed / 1e6,
        unit="MB",
        against=f"weights {model.nbytes / 1e6:.0f}, tokenizer {tokenizer / 1e6:.0f}, import {imported / 1e6:.0f} MB",
        ratio=(private - allowed) / ALLOWED,
        bar=1,
        at_most=True,
    )


def _bare(directory: Path) -> tuple[int, int]:
    """Private bytes of a process that does nothing but import mlx_lm, and what reading a tokenizer adds to them."""
    held = []
    command = [sys.executable, "-c", _BARE, str(directory)]
    with subprocess.Popen(  # noqa: S603  our own program
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=servers.environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdout.readline()
            held.append(psutil.Process(process.pid).memory_full_info().uss)
            process.stdin.write(b"\n")
            process.stdin.flush()
    imported, both = held
    return imported, both - imported
