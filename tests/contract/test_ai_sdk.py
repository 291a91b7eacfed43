"""Vercel's AI SDK as npm has it: its default model refers to what the service has kept, from the second turn on.

The newest major version runs on Node 22; the one before it on Node 20 too. They are installed as Codex is.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.calling import THOUGHT, scripted_caller
from tests.support.npm import npm_package

PROGRAM = Path(__file__).parent / "clients" / "with_ai_sdk.mjs"
VERSIONS = {"ai 7": ("7.0.173", "4.0.118", 22), "ai 6": ("6.0.326", "3.0.141", 20)}


@pytest.mark.parametrize("versions", VERSIONS.values(), ids=VERSIONS)
def test_two_turns_with_a_tool(tmp_path: Path, versions: tuple[str, str, int]) -> None:
    ai, provider, least = versions
    directories = [npm_package("ai", ai), npm_package("@ai-sdk/openai", provider)]
    node = shutil.which("node")
    assert node is not None
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < least:
        pytest.skip(f"ai {ai} needs Node {least}, this is {version}")
    with scripted_caller(tmp_path) as url:
        done = subprocess.run(
            [node, PROGRAM, *directories, url, "org/tiny"], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["whole"] == told["streamed"] == "The answer is: 12 degrees in Paris"
    assert (told["steps"], told["thought"]) == (2, THOUGHT)
    assert told["usage"] > 0
    assert told["references"] >= 1, "thoughts are referred to"
