"""The recipes of docs/clients, run as they stand on their pages, against a live server with the embedded model.

Clients that need an environment of their own are looked for in ``.venv-clients`` (or ``SWITCHYARD_CLIENTS``), those
for Node in ``NODE_PATH``; what is not installed is skipped.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import Server
from tests.support.npm import npm_package

PAGES = Path(__file__).parents[2] / "docs" / "clients"
ADDRESS = "http://127.0.0.1:8000"
CLIENTS = os.environ.get("SWITCHYARD_CLIENTS", ".venv-clients/bin/python")
QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_COLOR": "1", "HAYSTACK_TELEMETRY_ENABLED": "False"}


def recipe(page: str, language: str, url: str, number: int = 0) -> str:
    """A block of a language on a page, the first one unless ``number`` says otherwise, for the server at ``url``."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", (PAGES / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(found) > number, f"{page}.md has no block of {language}"
    return found[number].replace(ADDRESS, url)


def output(*command: str, stdin: str | None = None, **environ: Any) -> str:
    done = subprocess.run(
        command, input=stdin, env=os.environ | QUIET | environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def interpreter(module: str) -> str:
    """A Python that has the module."""
    for python in (sys.executable, CLIENTS):
        if (
            Path(python).exists()
            and not subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode
        ):
            return python
    pytest.skip(f"{module} is not installed here, nor for {CLIENTS}")


@pytest.mark.parametrize(
    ("page", "module"),
    [
        ("openai-python", "openai"),
        ("rest", "urllib"),
        ("langchain", "langchain_openai"),
        ("llamaindex", "llama_index.llms.openai_like"),
        ("litellm", "litellm"),
        ("instructor", "instructor"),
        ("pydantic-ai", "pydantic_ai.models.openai"),
        ("haystack", "haystack"),
    ],
)
def test_python(page: str, module: str, real: Server) -> None:
    assert "Paris" in output(interpreter(module), "-c", recipe(page, "python", real.url))


def test_litellm_with_what_is_kept(real: Server) -> None:
    assert "Paris" in output(interpreter("litellm"), "-c", recipe("litellm", "python", real.url, 1))


def test_curl(real: Server) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    assert "Paris" in output("bash", stdin=recipe("curl", "bash", real.url))


def test_node(real: Server, tmp_path: Path) -> None:
    home = next((path for path in os.environ.get("NODE_PATH", "").split(":") if Path(path, "openai").exists()), None)
    if shutil.which("node") is None or home is None:
        pytest.skip("needs node, and a NODE_PATH with the package openai")
    (tmp_path / "node_modules").symlink_to(home)
    (tmp_path / "recipe.mjs").write_text(recipe("openai-node", "js", real.url))
    assert "Paris" in output("node", str(tmp_path / "recipe.mjs"))


def test_vercel_ai_sdk(real: Server, tmp_path: Path) -> None:
    packages = npm_package("ai", "6.0.326"), npm_package("@ai-sdk/openai", "3.0.141")
    (tmp_path / "node_modules" / "@ai-sdk").mkdir(parents=True)
    (tmp_path / "node_modules" / "ai").symlink_to(packages[0])
    (tmp_path / "node_modules" / "@ai-sdk" / "openai").symlink_to(packages[1])
    (tmp_path / "recipe.mjs").write_text(recipe("vercel-ai-sdk", "js", real.url))
    assert "Paris" in output("node", str(tmp_path / "recipe.mjs"))


def test_llm(real: Server, tmp_path: Path) -> None:
    python = interpreter("llm")
    (tmp_path / "extra-openai-models.yaml").write_text(recipe("llm", "yaml", real.url))
    path = f"{Path(python).parent}:{os.environ['PATH']}"
    said = output("bash", stdin=recipe("llm", "bash", real.url), PATH=path, LLM_USER_PATH=str(tmp_path))
    assert "Paris" in said


def test_every_page_is_listed() -> None:
    listed = set(re.findall(r"\((\S+)\.md\)", (PAGES / "README.md").read_text()))
    assert listed == {path.stem for path in PAGES.glob("*.md")} - {"README"}
