"""Coding agents as npm has them, set up as their pages say, against a live service: they run a command and tell of it.

They are installed on first use into a cache outside of the tree; where npm cannot do that, these tests are skipped.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.engine.base import Sequence
from tests.support.calling import scripted_caller
from tests.support.npm import npm_package
from tests.support.scripted import BOS

PAGES = Path(__file__).parents[2] / "docs" / "clients"
MODEL = "mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit"
COMMAND = "echo it-ran-$((40 + 2))"
RULE = re.compile(r"^<(?:user|assistant)>", re.MULTILINE)


def coder(sequence: Sequence, _row: int) -> bytes:
    """Runs the command where there is a tool for it, and tells what came of it."""
    prompt = bytes(token for token in sequence.prompt if token < BOS).decode()
    if results := re.findall(r"^<tool>((?:.|\n)*?)(?=^<|\Z)", prompt, re.MULTILINE):
        return f"It said: {results[-1]}".encode()
    if "<tools>" not in prompt or " bash " not in f" {prompt.splitlines()[0]} ".replace("<tools>", " "):
        return b"A title"
    call = json.dumps({"name": "bash", "arguments": {"command": COMMAND, "description": "Say that it ran"}})
    return f"Looking.\n<tool_call>\n{call}\n</tool_call>".encode()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "models").mkdir()
    with scripted_caller(tmp_path / "models", coder, context_length=1 << 20, aliases=(MODEL,)) as url:
        yield url


def config(page: str, url: str) -> str:
    """What the page says that is written into a file, for the service at ``url``."""
    found = re.search(r"^```json\n(.*?)^```$", (PAGES / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found[1].replace("http://127.0.0.1:8000/v1", url)


def run(home: Path, *command: str | Path) -> str:
    """What the program says, in an empty home and an empty project."""
    project = home / "project"
    project.mkdir()
    environ = {"HOME": str(home), "PATH": os.environ["PATH"], "NO_COLOR": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}
    done = subprocess.run(
        command, cwd=project, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    return done.stdout


def test_pi(service: str, tmp_path: Path) -> None:
    package = npm_package("@mariozechner/pi-coding-agent", "0.73.1")
    (tmp_path / ".pi" / "agent").mkdir(parents=True)
    (tmp_path / ".pi" / "agent" / "models.json").write_text(config("pi", service))
    command: list[str | Path] = [
        "node",
        package / "dist" / "cli.js",
        "--provider",
        "switchyard",
        "--model",
        MODEL,
        "-p",
        "Run it.",
    ]
    assert "It said: it-ran-42" in run(tmp_path, *command)


def test_opencode(service: str, tmp_path: Path) -> None:
    package = npm_package("opencode-ai", "1.18.33")
    (tmp_path / ".config" / "opencode").mkdir(parents=True)
    (tmp_path / ".config" / "opencode" / "opencode.json").write_text(config("opencode", service))
    program = next(package.parent.glob("opencode-*/bin/opencode"), None)
    if program is None:
        pytest.skip("npm has no opencode for this machine")
    program.chmod(0o755)
    assert "It said: it-ran-42" in run(tmp_path, program, "run", "Run it.")
