"""Codex as npm has it, against a live service: it answers, runs commands, edits, goes on, and shows what went wrong.

It is installed on first use into a cache outside of the tree; where npm cannot do that, these tests are skipped.
"""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import AsyncGenerator, Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from app.api.write.response_dialect import ResponseDialect
from app.engine.base import Sequence
from app.errors import EngineFailed, InvalidRequest, ModelNotFound, QueueFull, SwitchyardError, Unavailable
from app.generation.events import Delta, Finished
from tests.support.calling import scripted_caller, telling
from tests.support.events import COMPLETED, STARTED, ScriptedStrategy
from tests.support.npm import npm_package
from tests.support.scripted import BOS

VERSION = "0.169.0"
KNOWN = "gpt-5.5"
"""A model's name that Codex knows: it is given the tool that edits files, with its grammar."""
PATCH = '*** Begin Patch\n*** Add File: made.txt\n+said "so"\n*** End Patch\n'
CALLS = {
    "run the command": ("exec_command", {"cmd": "echo it-ran-$((40 + 2))"}),
    "close the agent": ("multi_agent_v1__close_agent", {"target": "nobody"}),
    "edit the file": ("apply_patch", {"input": PATCH}),
}
RULE = re.compile(r"^<(?:user|assistant)>", re.MULTILINE)


class Agent:
    """A model that calls what it is asked to, and tells what came of it; ``prompts`` is what it was sent."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, sequence: Sequence, _row: int) -> bytes:
        prompt = bytes(token for token in sequence.prompt if token < BOS).decode()
        self.prompts.append(prompt)
        asked = RULE.split(prompt)[-2]
        if results := re.findall(r"^<tool>((?:.|\n)*)", asked, re.MULTILINE):
            return f"<think>\nDone.\n</think>\n\nIt said: {results[-1]}".encode()
        for words, (name, arguments) in CALLS.items():
            if words in asked:
                call = json.dumps({"name": name, "arguments": arguments})
                return f"<think>\nI must look.\n</think>\n\nLooking.\n<tool_call>\n{call}\n</tool_call>".encode()
        return b"<think>\nHm.\n</think>\n\nHello from here."


@pytest.fixture(scope="module")
def program() -> list[str | Path]:
    return ["node", npm_package("@openai/codex", VERSION) / "bin" / "codex.js"]


@pytest.fixture
def codex(program: list[str | Path], tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Run it in an empty home and an empty project; nothing but the service is asked."""
    for name in ("home", "project"):
        (tmp_path / name).mkdir()

    def run(url: str, *arguments: str, model: str = "org/tiny", **settings: Any) -> tuple[int, str, str]:
        provider = {"name": "Switchyard", "base_url": url, "wire_api": "responses", "request_max_retries": 1}
        provider |= {"stream_max_retries": 0, **settings}
        written = ", ".join(f"{key} = {json.dumps(value)}" for key, value in provider.items())
        command = [
            *program, "exec", "--skip-git-repo-check", "-s", "danger-full-access", "-m", model,
            "-c", "model_provider=switchyard", "-c", f"model_providers.switchyard={{{written}}}", *arguments,
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=tmp_path / "project", env={"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90,
        )  # fmt: skip
        return done.returncode, done.stdout.strip(), done.stderr

    return run


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[Agent, str]]:
    made = Agent()
    root = tmp_path / "models"
    root.mkdir()
    with scripted_caller(root, made, context_length=1 << 20, aliases=(KNOWN,)) as url:
        yield made, url


def shared(first: str, second: str) -> float:
    """The share of the first prompt that the second one begins with."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return sum(1 for _ in same) / len(first)


def test_it_answers_and_goes_on_in_a_second_turn(
    codex: Callable[..., tuple[int, str, str]], agent: tuple[Agent, str]
) -> None:
    model, url = agent
    assert codex(url, "Say hello.")[:2] == (0, "Hello from here.")
    assert codex(url, "resume", "--last", "And again.")[:2] == (0, "Hello from here.")
    first, second = model.prompts
    assert second.count("Hello from here.") == 1
    assert "And again." in second
    assert shared(first, second) > 0.98


def test_it_runs_a_command_and_reads_its_result(
    codex: Callable[..., tuple[int, str, str]], agent: tuple[Agent, str]
) -> None:
    model, url = agent
    code, said, shown = codex(url, "Please run the command.")
    assert code == 0
    assert said.endswith("it-ran-42")
    assert "I must look." in shown, "thoughts are shown"
    first, second = model.prompts
    assert "it-ran-42" in second
    assert shared(first, second) > 0.98


def test_a_function_of_a_namespace_is_found(
    codex: Callable[..., tuple[int, str, str]], agent: tuple[Agent, str]
) -> None:
    _, url = agent
    code, said, _ = codex(url, "Please close the agent.")
    assert code == 0
    assert "invalid agent id nobody" in said
    assert "unsupported" not in said


def test_it_edits_with_a_custom_tool(
    codex: Callable[..., tuple[int, str, str]], agent: tuple[Agent, str], tmp_path: Path
) -> None:
    _, url = agent
    code, said, _ = codex(url, "Please edit the file.", model=KNOWN)
    assert (code, "A made.txt" in said) == (0, True)
    assert (tmp_path / "project" / "made.txt").read_text() == 'said "so"\n'


@pytest.mark.parametrize(
    ("failure", "late"),
    [
        (InvalidRequest("This model knows no tools: name another.", param="tools"), False),
        (ModelNotFound("There is no such model here.", param="model"), False),
        (QueueFull("256 requests are waiting here.", retry_after=1.0), False),
        (Unavailable("All of the memory is in use.", retry_after=1.0), False),
        (QueueFull("256 requests are waiting here.", retry_after=1.0), True),
        (EngineFailed("The engine stopped; send it again."), True),
    ],
)
def test_a_failure_is_shown_in_our_words(
    codex: Callable[..., tuple[int, str, str]], tmp_path: Path, failure: SwitchyardError, late: bool
) -> None:
    steps = [STARTED, Delta(0, "Part of"), failure] if late else [failure]
    (tmp_path / "models").mkdir()
    with telling(tmp_path / "models", ScriptedStrategy(*steps)) as url:
        code, _, shown = codex(url, "Say hello.")
    assert code == 1
    assert failure.message in shown


def test_a_prompt_that_is_too_long_is_one_for_it_too(
    codex: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    with scripted_caller(tmp_path / "models", Agent(), context_length=1000) as url:
        code, _, shown = codex(url, "Say hello.")
    assert code == 1
    assert "ran out of room in the model's context window" in shown


class Slow(ScriptedStrategy):
    """Computes its prompt for longer than Codex waits for an event."""

    async def run(self, *given: Any, **named: Any) -> AsyncGenerator[Any]:
        yield (STARTED,)
        await asyncio.sleep(3)
        yield (Delta(0, "At last."), Finished(0, "stop"), COMPLETED)


def test_it_waits_for_a_long_prompt(
    codex: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ResponseDialect, "quiet_seconds", 0.3)
    (tmp_path / "models").mkdir()
    with telling(tmp_path / "models", Slow()) as url:
        assert codex(url, "Say hello.", stream_idle_timeout_ms=1000)[:2] == (0, "At last.")


def test_the_page_about_it_sets_what_these_tests_set() -> None:
    page = (Path(__file__).parents[2] / "docs" / "clients" / "codex.md").read_text()
    for words in ('wire_api = "responses"', "base_url", 'model_provider = "switchyard"', VERSION):
        assert words in page
