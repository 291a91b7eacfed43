"""``bench`` on a live service whose model takes a known time for each token."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import repeat
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from app.cli.exits import Exit
from app.cli.root import switchyard
from app.cli.talk.bench import Figures, summary
from app.cli.talk.speak import Spoken
from app.cli.talk.trial import Answer
from app.main import create_app
from app.settings import Settings
from tests.support.house import scripted_memory, scripted_registry
from tests.support.live import live
from tests.support.scripted import ScriptedEngine, ScriptedLoader

STEP = 0.01


class SlowLoader(ScriptedLoader):
    """Its engines take ``STEP`` seconds for a prompt, and for each token."""

    async def load(self, path: Path, **given: Any) -> ScriptedEngine:
        engine = await super().load(path, **given)
        engine.step_seconds = STEP
        return engine


@pytest.fixture(scope="module")
def loader() -> SlowLoader:
    return SlowLoader(scripted_memory(), script=lambda _sequence, _row: repeat(ord("a")))


@pytest.fixture(scope="module")
def url(loader: SlowLoader, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        async with scripted_registry(loader, tmp_path_factory.mktemp("bench")) as registry:
            yield create_app(Settings(default_model="tiny"), registry=registry)

    with live(make) as url:
        yield url


@pytest.fixture
def run(url: str) -> Callable[..., str]:
    """Run ``bench`` with a model; what it prints, with the exit code it must end with."""

    def run(*arguments: str, code: Exit = Exit.DONE, at: str = url) -> str:
        done = CliRunner().invoke(switchyard, ["bench", *arguments, "--url", at])
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done.stdout if code == Exit.DONE else done.stderr

    return run


def test_figures_are_those_of_the_model(run: Callable[..., str], loader: SlowLoader) -> None:
    told = run("tiny", "--streams", "1,3", "--prompt-tokens", "200", "--tokens", "20", "--rounds", "2", "--json")
    one, three = (msgspec.json.decode(line, type=Figures) for line in told.splitlines())
    assert (one.streams, three.streams) == (1, 3)
    for figures in (one, three):
        assert 150 < figures.prompt_tokens < 250
        assert figures.tokens == 20
        assert 2 * STEP <= figures.first_token_seconds <= figures.worst_first_token_seconds < 2
        assert 5 < figures.stream_tokens_per_second < 2 / STEP
        assert figures.tokens_per_second < figures.streams / STEP
    assert one.tokens_per_second < one.stream_tokens_per_second
    assert three.tokens_per_second > three.stream_tokens_per_second
    assert one.prompt_tokens_per_second == pytest.approx(one.prompt_tokens / one.first_token_seconds)
    assert three.prompt_tokens_per_second is None


def test_no_prompt_is_sent_twice_and_one_request_is_not_counted(run: Callable[..., str], loader: SlowLoader) -> None:
    run("org/other", "--streams", "2", "--rounds", "3", "--tokens", "2")
    submitted = loader.engines["org/other"].submitted
    assert len({sequence.prompt for sequence in submitted}) == len(submitted) == 1 + 2 * 3
    assert {(sequence.max_tokens, sequence.stop_ids) for sequence in submitted} == {(2, frozenset())}


def test_people_get_a_table(run: Callable[..., str]) -> None:
    head, one, two = run("tiny", "--streams", "1, 2", "--rounds", "1", "--tokens", "2").splitlines()
    assert head.startswith("STREAMS  PROMPT  TOKENS  FIRST TOKEN")
    assert (one.split()[0], two.split()[0], two.split()[-1]) == ("1", "2", "-")
    assert all(len(line) > head.index("PROMPT TOKENS/S") for line in (one, two))


def test_refusals_are_one_line_and_a_code(run: Callable[..., str]) -> None:
    assert "org/gone" in run("org/gone", code=Exit.REFUSED)
    line = run("tiny", "--prompt-tokens", "9000", code=Exit.REFUSED)
    assert "context" in line
    assert line.count("\n") == 1
    assert "nothing answers" in run("tiny", code=Exit.NO_SERVER, at="http://127.0.0.1:1")
    assert "--streams" in run("tiny", "--streams", "1,none", code=Exit.USAGE)
    assert "--streams" in run("tiny", "--streams", "0", code=Exit.USAGE)


def test_an_interrupt_ends_every_stream(run: Callable[..., str], loader: SlowLoader, url: str) -> None:
    run("org/tiny", "--tokens", "2", "--rounds", "1")
    engine = loader.engines["org/tiny"]
    before = len(engine.submitted)
    command = [sys.executable, "-m", "app", "bench", "org/tiny", "--streams", "3", "--tokens", "200", "--url", url]
    known = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHYARD_")}
    bench = subprocess.Popen(command, env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _wait(lambda: len(engine.submitted) >= before + 1 + 3)
    bench.send_signal(signal.SIGINT)
    assert bench.communicate(timeout=10) == ("", "switchyard: interrupted\n")
    assert bench.returncode == Exit.INTERRUPTED
    _wait(lambda: not engine.streams)


def test_medians_are_of_rounds_and_the_worst_of_streams() -> None:
    def answer(began: float, first: float, seconds: float) -> Answer:
        return Answer(
            began, Spoken(first_token_seconds=first, seconds=seconds, prompt_tokens=100, completion_tokens=11)
        )

    rounds = [[answer(0.0, 1.0, 2.0), answer(1.0, 3.0, 4.0)], [answer(9.0, 2.0, 4.0), answer(9.0, 2.0, 4.0)]]
    told = summary(rounds)
    assert (told.streams, told.prompt_tokens, told.tokens) == (2, 100, 11)
    assert (told.first_token_seconds, told.worst_first_token_seconds) == (2.0, 2.5)
    assert told.stream_tokens_per_second == (5 + 10) / 2
    assert told.tokens_per_second == (22 / 5 + 22 / 4) / 2


def test_what_comes_at_once_has_no_rate_of_its_own() -> None:
    told = summary([[Answer(0.0, Spoken(seconds=0.5, prompt_tokens=50, completion_tokens=1))]])
    assert (told.first_token_seconds, told.stream_tokens_per_second) == (0.5, None)
    assert (told.tokens_per_second, told.prompt_tokens_per_second) == (2.0, 100.0)


def _wait(until: Callable[..., Any]) -> None:
    end = monotonic() + 20
    while not until():
        assert monotonic() < end
        sleep(0.01)
