"""Claude Code as npm has it, against a live service: it answers, runs commands, goes on, and shows what went wrong.

It is installed on first use into a cache outside of the tree; where npm cannot do that, these tests are skipped.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.engine.base import Sequence
from app.errors import EngineFailed, InvalidRequest, QueueFull, SwitchyardError, Unavailable
from app.generation.events import Delta
from app.main import create_app
from app.settings import Settings
from tests.support.calling import scripted_caller
from tests.support.events import STARTED, ScriptedStrategy
from tests.support.house import scripted_memory, scripted_registry
from tests.support.live import live
from tests.support.npm import npm_package
from tests.support.scripted import BOS, ScriptedLoader

VERSION = "2.1.197"
COMMAND = {"name": "Bash", "arguments": {"command": "echo it-ran-$((40 + 2))", "description": "Count."}}
CALL = f"<think>\nI must look.\n</think>\n\nLooking.\n<tool_call>\n{json.dumps(COMMAND)}\n</tool_call>"


class Agent:
    """A model that runs a command where it is asked to, and tells what came of it; ``prompts`` is what it was sent."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, sequence: Sequence, _row: int) -> bytes:
        prompt = bytes(token for token in sequence.prompt if token < BOS).decode()
        self.prompts.append(prompt)
        if results := re.findall(r"^<tool>(.*)", prompt, re.MULTILINE):
            return f"<think>\nDone.\n</think>\n\nIt said: {results[-1]}".encode()
        return CALL.encode() if "run the command" in prompt else b"<think>\nHm.\n</think>\n\nHello from here."


@pytest.fixture(scope="module")
def program() -> list[str | Path]:
    package = npm_package("@anthropic-ai/claude-code", VERSION)
    return ["node", package / "cli-wrapper.cjs"]


@pytest.fixture
def claude(program: list[str | Path], tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Run it in an empty home and an empty project; nothing but the service is asked."""
    for name in ("home", "project"):
        (tmp_path / name).mkdir()

    def run(url: str, *arguments: str) -> tuple[int, str]:
        environment = {
            "HOME": str(tmp_path / "home"),
            "PATH": os.environ["PATH"],
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_AUTH_TOKEN": "none",
            "ANTHROPIC_MODEL": "org/tiny",
            "ANTHROPIC_DEFAULT_HAIKU_MODEL": "org/tiny",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "1",
            "DISABLE_AUTOUPDATER": "1",
        }
        command = [*program, "-p", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path / "project", env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=90,
        )  # fmt: skip
        return done.returncode, done.stdout.strip()

    return run


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[Agent, str]]:
    made = Agent()
    root = tmp_path / "models"
    root.mkdir()
    with scripted_caller(root, made, context_length=1 << 20) as url:
        yield made, url.removesuffix("/v1")


@contextmanager
def failing(root: Path, *steps: InvalidRequest) -> Iterator[str]:
    @asynccontextmanager
    async def app() -> AsyncIterator[Any]:
        async with scripted_registry(ScriptedLoader(scripted_memory()), root) as registry:
            yield create_app(Settings(), registry=registry, strategy=ScriptedStrategy(*steps))

    with live(app) as url:
        yield url


def test_it_answers_and_goes_on_in_a_second_turn(
    claude: Callable[..., tuple[int, str]], agent: tuple[Agent, str]
) -> None:
    model, url = agent
    assert claude(url, "Say hello.") == (0, "Hello from here.")
    assert claude(url, "--continue", "And again.") == (0, "Hello from here.")
    first, second = model.prompts
    assert "And again." in second
    assert second.count("Hello from here.") == 1
    assert second[: round(0.98 * len(first))] == first[: round(0.98 * len(first))]


def test_it_runs_a_command_and_reads_its_result(
    claude: Callable[..., tuple[int, str]], agent: tuple[Agent, str]
) -> None:
    model, url = agent
    assert claude(url, "Please run the command.", "--allowedTools", "Bash") == (0, "It said: it-ran-42")
    first, second = model.prompts
    assert "<tool>it-ran-42" in second
    assert second[: round(0.98 * len(first))] == first[: round(0.98 * len(first))]


def test_its_instructions_inside_the_conversation_and_its_tools_reach_the_model(
    claude: Callable[..., tuple[int, str]], agent: tuple[Agent, str]
) -> None:
    model, url = agent
    claude(url, "Say hello.")
    (prompt,) = model.prompts
    assert re.match(r"<tools>.*\bBash\b.*\bRead\b", prompt)
    assert "x-anthropic-billing-header" not in prompt
    assert re.search(r"^<user>(.|\n)*Say hello\.", prompt, re.MULTILINE)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (InvalidRequest("This model knows no tools: name another.", param="tools"), 400),
        (QueueFull("256 requests are waiting here.", retry_after=1.0), 529),
        (Unavailable("All of the memory is in use.", retry_after=1.0), 503),
        (EngineFailed("The engine stopped; send it again."), 500),
    ],
)
def test_a_failure_is_shown_in_our_words(
    claude: Callable[..., tuple[int, str]], tmp_path: Path, failure: SwitchyardError, status: int, late: bool
) -> None:
    steps = [STARTED, Delta(0, "Part of"), failure] if late else [failure]
    (tmp_path / "models").mkdir()
    with failing(tmp_path / "models", *steps) as url:
        code, said = claude(url, "Say hello.")
    assert code == 1
    assert failure.message in said
    assert late or str(status) in said


def test_a_prompt_that_is_too_long_is_one_for_it_too(claude: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with scripted_caller(tmp_path / "models", context_length=1000) as url:
        code, said = claude(url.removesuffix("/v1"), "Say hello.")
    assert (code, said[:18]) == (1, "Prompt is too long")


def test_it_is_launched_without_a_file_of_its_own_being_touched(
    program: list[str | Path], agent: tuple[Agent, str], tmp_path: Path
) -> None:
    _, url = agent
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "claude").write_text(f'#!/bin/sh\nexec {" ".join(map(str, program))} "$@"\n')
    (tmp_path / "bin" / "claude").chmod(0o755)
    (tmp_path / "home" / ".claude").mkdir(parents=True)
    settings = tmp_path / "home" / ".claude" / "settings.json"
    settings.write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "app", "launch", "claude", "--model", "org/tiny", "-p", "Say hello."],
        env={
            "HOME": str(tmp_path / "home"),
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "SWITCHYARD_URL": url,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "Hello from here."), done.stderr
    assert settings.read_text() == "{}"


def test_the_page_about_it_sets_what_these_tests_set(program: list[str | Path]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "clients" / "claude-code.md").read_text()
    for name in ("ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL"):
        assert name in page
    assert shutil.which("node")
