"""Instructor, LangChain and the OpenAI Agents SDK, as published, against a live server.

They pin older versions of the OpenAI client than the other tests use, so they live in an environment of their own:
``uv sync --only-group clients`` with ``UV_PROJECT_ENVIRONMENT=.venv-clients``, or ``pip install --group clients``
there. ``SWITCHYARD_CLIENTS`` names another interpreter.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.calling import guided, scripted_caller

CLIENTS = Path(__file__).parent / "clients"
PYTHON = Path(os.environ.get("SWITCHYARD_CLIENTS", ".venv-clients/bin/python"))
NEEDS = pytest.mark.skipif(
    not PYTHON.exists(), reason=f"the dependency group 'clients' is not installed: there is no {PYTHON}"
)
pytestmark = NEEDS


@pytest.fixture(scope="module")
def mlx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with guided(tmp_path_factory.mktemp("guided")) as url:
        yield url


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with scripted_caller(tmp_path_factory.mktemp("caller")) as url:
        yield url


def run(program: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [PYTHON, CLIENTS / program, *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env={"HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check_guest(guest: dict[str, Any]) -> None:
    assert len(guest["name"]) <= 12
    assert 0 <= guest["age"] <= 120


def test_instructor(mlx: str) -> None:
    told = run("with_instructor.py", mlx, "tiny")
    assert told.keys() == {"JSON_SCHEMA", "TOOLS"}
    for guest in told.values():
        check_guest(guest)


def test_langchain(mlx: str, caller: str) -> None:
    told = run("with_langchain.py", mlx, "tiny", caller, "org/tiny")
    check_guest(told["json_schema"])
    check_guest(told["function_calling"])
    assert told["answer"] == "The answer is: 12 degrees in Paris"
    assert json.loads("".join(told["streamed"])) == {"city": "Paris"}
    assert set(told["responses"].values()) == {"The answer is: 12 degrees in Paris"}


def test_the_agents_sdk_runs_a_two_step_loop(caller: str) -> None:
    told = run("with_agents.py", caller, "org/tiny")
    for kind in ("chat", "responses"):
        assert told[kind]["whole"] == told[kind]["streamed"] == "The answer is: 12 degrees in Paris"
        assert told[kind]["called"] == ["Paris", "Paris"]
    assert told["responses"]["after"] == "The answer is: 12 degrees in Paris"
