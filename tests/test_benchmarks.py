"""The programs of ``benchmarks`` still fit the code that they measure, and count as they say."""

import asyncio
import subprocess
import sys
from asyncio.streams import StreamReader, StreamWriter
from importlib import import_module
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from benchmarks import large_tokenizer
from benchmarks.__main__ import CASES, ON_DEMAND, VERSIONS
from benchmarks.bench import Bench
from benchmarks.client import Ask, Load, play
from benchmarks.report import Runs
from benchmarks.versions import Row, lines

ROOT = Path(__file__).parents[1]
YARDSTICKS = {"floor", "direct"}
"""They are asked line by line and import little."""
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "benchmarks").rglob("*.py")
    if path.stem not in YARDSTICKS
)


@pytest.mark.parametrize("module", MODULES)
def test_every_program_imports_what_there_is(module: str) -> None:
    import_module(module)


@pytest.mark.parametrize("case", CASES + ON_DEMAND)
def test_every_case_can_be_run_by_its_name_and_some_against_another_version(case: str) -> None:
    module = import_module(f"benchmarks.cases.{case}")
    assert callable(module.run)
    assert hasattr(module, "against") == (case in VERSIONS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--against", "/nowhere"], "is no checkout of this project"),
        (["beside", "--against", str(ROOT)], "beside: only startup, single"),
        (["single", "--streams", "2"], "unrecognized arguments: --streams 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr


def test_against_another_version_a_ratio_is_the_better_the_larger_it_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 3, tmp_path)
    ours, other = bench.versions
    rounds = iter([(200.0, 5.0), (100.0, 10.0), (100.0, 10.0), (200.0, 5.0), (200.0, 5.0), (100.0, 10.0)])

    def measure(number: int) -> dict[str, float]:
        rate, time = next(rounds)
        return {"rate": rate, "time": time}

    runs = Runs(3, {f"{ours}, kind": measure, f"{other}, kind": measure})
    rows = (Row("kind", "rate", "a rate", "tokens/s"), Row("kind", "time", "a time", "ms", time=True))
    for line in lines(bench, runs, rows):
        assert (line.ratio, line.verdict, line.rounds, line.against) == (2.0, "pass", 3, other)


async def test_a_stream_that_runs_beside_others_is_cut_off_after_them_and_is_no_failure() -> None:
    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        asked = await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        left = 2 if b"short" in asked else 10_000
        while left and not writer.is_closing():
            writer.write(b'data: {"choices": [{"text": "a"}]}\n\n')
            await asyncio.sleep(0.01)
            left -= 1
        writer.write(b"" if left else b"data: [DONE]\n\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        asks = [Ask("/", {"prompt": "endless"}, beside=0.1), Ask("/", {"prompt": "short"}, after=0.1)]
        endless, short = await asyncio.wait_for(play(Load(port, asks)), 20)
    assert [endless.error, short.error] == ["", ""]
    assert len(short.times) == 2
    assert len(endless.times) > 2
    assert short.ended + 0.1 <= endless.ended < short.ended + 10


def test_a_made_tokenizer_is_as_large_as_the_one_that_it_stands_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tokenizer = Tokenizer.from_str(large_tokenizer.files()["tokenizer.json"].decode())
    assert tokenizer.get_vocab_size() == 200_019
    assert tokenizer.token_to_id("<|return|>") == large_tokenizer.EOS
    assert tokenizer.decode(tokenizer.encode("Grüße, 日本").ids) == "Grüße, 日本"
