"""``switchyard launch``: what clients are told, by a live service and programs that write down what they were given."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import msgspec
import pytest

from app.cli.clients.agents import agents
from app.cli.exits import Exit
from app.main import create_app
from app.settings import Settings
from tests.support.house import model_root, scripted_memory, scripted_registry
from tests.support.live import live
from tests.support.scripted import ScriptedLoader

RECORDER = """#!{python}
import json, os, sys
json.dump([sys.argv[1:], dict(os.environ)], open(os.environ["RECORD"], "w"))
sys.exit(7)
"""
MODEL = "org/tiny"
TOLD = {
    "aider": ("--model openai/org/tiny", {"OPENAI_API_BASE": "{url}/v1", "OPENAI_API_KEY": "sk-right"}),
    "claude": (
        "",
        {
            "ANTHROPIC_BASE_URL": "{url}",
            "ANTHROPIC_AUTH_TOKEN": "sk-right",
            "ANTHROPIC_MODEL": MODEL,
            "ANTHROPIC_DEFAULT_HAIKU_MODEL": MODEL,
        },
    ),
    "codex": ('base_url="{url}/v1",wire_api="responses",env_key="SWITCHYARD_KEY"', {"SWITCHYARD_KEY": "sk-right"}),
    "opencode": ("", {"SWITCHYARD_KEY": "sk-right"}),
    "pi": (
        "--provider switchyard --model org/tiny",
        {"SWITCHYARD_URL": "{url}", "SWITCHYARD_KEY": "sk-right", "PI_SWITCHYARD_MODEL": MODEL},
    ),
    "qwen": (
        "--auth-type openai --model org/tiny",
        {"OPENAI_BASE_URL": "{url}/v1", "OPENAI_API_KEY": "sk-right", "OPENAI_MODEL": MODEL},
    ),
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("launch")

    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        async with scripted_registry(ScriptedLoader(scripted_memory()), root) as registry:
            yield create_app(Settings(), registry=registry)

    with live(make) as url:
        yield url


class Launch:
    """The command in an empty home; what a client was given and has left there."""

    def __init__(self, start: Callable[..., subprocess.CompletedProcess[str]], place: Path) -> None:
        self._start = start
        self._place = place

    def __call__(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return self._start(sys.executable, "-m", "app", "launch", *arguments, **environ)

    def shell(self, text: str) -> subprocess.CompletedProcess[str]:
        return self._start("sh", "-c", text)

    def record(self) -> tuple[list[str], dict[str, str]]:
        """Arguments and environment."""
        return msgspec.json.decode((self._place / "record.json").read_bytes(), type=tuple[list[str], dict[str, str]])

    def files(self) -> list[Path]:
        return [path for name in ("home", "project") for path in (self._place / name).rglob("*")]


@pytest.fixture
def run(url: str, tmp_path: Path) -> Launch:
    """Run the command in an empty home, with a program of every client's name that records what it is given."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in agents():
        (programs / name).write_text(RECORDER.format(python=sys.executable))
        (programs / name).chmod(0o755)
    (tmp_path / "home").mkdir()
    (tmp_path / "project").mkdir()

    def run(*command: str, **environ: Any) -> subprocess.CompletedProcess[str]:
        environment = {
            "HOME": str(tmp_path / "home"),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "RECORD": str(tmp_path / "record.json"),
            "SWITCHYARD_URL": url,
            "SWITCHYARD_KEY": "sk-right",
            "ANTHROPIC_API_KEY": "the user's own",
        }
        return subprocess.run(
            command, cwd=tmp_path / "project", env=environment | environ, capture_output=True, text=True, timeout=60
        )

    return Launch(run, tmp_path)


def test_every_client_is_tried_here() -> None:
    assert TOLD.keys() == agents().keys()


@pytest.mark.parametrize("client", TOLD)
def test_a_client_becomes_the_command_and_is_told_of_the_service(client: str, run: Launch, url: str) -> None:
    done = run(client, "--model", MODEL, "-x", "--", "--print", "two words")
    assert done.returncode == 7, done.stderr  # the client's own
    arguments, environment = run.record()
    flags, variables = TOLD[client]
    assert arguments[-3:] == ["-x", "--print", "two words"]
    assert flags.replace("{url}", url) in " ".join(arguments)
    for name, value in variables.items():
        assert environment[name] == value.replace("{url}", url)
    assert ("ANTHROPIC_API_KEY" in environment) is (client != "claude")
    assert run.files() == []


@pytest.mark.parametrize("client", TOLD)
def test_what_is_printed_does_the_same_without_the_key(client: str, run: Launch) -> None:
    run(client, "--model", MODEL, "-x", "two words")
    expected, environment = run.record()
    printed = run(client, "--model", MODEL, "--print", "-x", "two words")
    assert (printed.returncode, "sk-right" in printed.stdout) == (0, False)
    assert run.shell(printed.stdout.replace("YOUR_KEY", "sk-right")).returncode == 7
    arguments, again = run.record()
    assert arguments == expected
    ignored = {"_", "PWD", "SHLVL", "OLDPWD"}
    assert {k: v for k, v in again.items() if k not in ignored} == {
        k: v for k, v in environment.items() if k not in ignored
    }


def test_opencode_is_given_a_whole_configuration(run: Launch, url: str) -> None:
    run("opencode", "--model", MODEL)
    config = json.loads(run.record()[1]["OPENCODE_CONFIG_CONTENT"])
    provider = config["provider"]["switchyard"]
    assert provider["options"] == {"baseURL": f"{url}/v1", "apiKey": "{env:SWITCHYARD_KEY}"}
    assert list(provider["models"]) == [MODEL]
    assert config["model"] == config["small_model"] == f"switchyard/{MODEL}"


def test_pis_provider_is_a_file_of_the_package_that_reads_those_variables(
    run: Launch,
) -> None:
    run("pi", "--model", MODEL)
    arguments, environment = run.record()
    provider = Path(arguments[arguments.index("-e") + 1])
    read = set(re.findall(r"process\.env\.(\w+)", provider.read_text()))
    assert read <= environment.keys()
    assert "SWITCHYARD_KEY" in environment


def test_what_a_model_here_holds_is_told(run: Launch, tmp_path: Path) -> None:
    root = model_root(tmp_path / "models")
    (root / "tiny" / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 5000}')
    config = tmp_path / "my.toml"
    config.write_text(f'model_roots = ["{root}"]\ndefault_model = "tiny"\n')
    told = {name: run(name, "--print", "--config", str(config)).stdout for name in agents()}
    assert "CLAUDE_CODE_AUTO_COMPACT_WINDOW=5000" in told["claude"]
    assert "model_context_window=5000" in told["codex"]
    assert '"context": 5000' in told["opencode"]
    assert "PI_SWITCHYARD_CONTEXT=5000" in told["pi"]
    assert "--model tiny" in told["qwen"]


def test_a_model_that_reads_too_little_for_agents_is_told_before_they_start(run: Launch, url: str) -> None:
    assert run("codex", "--model", MODEL).stderr == ""  # not loaded: nobody knows what it reads
    urlopen(Request(f"{url}/admin/models/{MODEL}/load", method="POST"), timeout=30).close()  # noqa: S310  our own
    told = run("codex", "--model", MODEL).stderr
    assert "org/tiny reads 4096 tokens" in told
    assert "--model" in told
    urlopen(Request(f"{url}/admin/models/{MODEL}/unload", method="POST"), timeout=30).close()  # noqa: S310  our own


def test_names_that_shells_take_for_something_else_are_quoted(
    run: Launch,
) -> None:
    name = "org/it's $(here)"
    printed = run("claude", "--model", name, "--print").stdout
    assert run.shell(printed).returncode == 7
    assert run.record()[1]["ANTHROPIC_MODEL"] == name
    assert shlex.split(printed.replace("\\\n", ""))[0] == "env"


def test_what_is_missing_is_said(run: Launch, tmp_path: Path) -> None:
    (tmp_path / "bin" / "qwen").unlink()
    missing = run("qwen", PATH=str(tmp_path / "bin"))
    assert missing.returncode == Exit.NO_CLIENT
    assert "qwen is not installed; get it with: npm install -g @qwen-code/qwen-code" in missing.stderr
    away = run("claude", SWITCHYARD_URL="http://127.0.0.1:1")
    assert away.returncode == Exit.NO_SERVER
    assert "nothing answers at http://127.0.0.1:1" in away.stderr
    assert run("emacs").returncode == Exit.USAGE


@pytest.mark.parametrize("content", [b"\x7fELF of another machine", b"echo no first line", b"#!/no/such/program\n"])
def test_a_program_that_the_system_cannot_run_is_told_in_one_line(content: bytes, run: Launch, tmp_path: Path) -> None:
    (tmp_path / "bin" / "codex").write_bytes(content)
    done = run("codex", "--model", MODEL)
    assert done.returncode == Exit.NO_CLIENT
    assert "cannot be run" in done.stderr.splitlines()[-1]
    assert "npm install" in done.stderr
    assert "Traceback" not in done.stderr
