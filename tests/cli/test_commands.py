"""The commands, on a live service whose model is scripted, and on this machine's disk where none runs."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from app.cli.client import Client
from app.cli.exits import Exit
from app.cli.look.models import _together
from app.cli.look.ps import merged, picture
from app.cli.reach import known_models
from app.cli.root import switchyard
from app.cli.talk.chat import _message
from app.engine.base import Sequence
from app.main import create_app
from app.schemas.admin import AdminEvent, AdminTogether
from app.settings import Settings
from tests.support.house import scripted_memory, scripted_registry
from tests.support.hub import LocalHub
from tests.support.live import live
from tests.support.scripted import ScriptedLoader, echoes, says
from tests.support.tiny import make_tiny

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("commands")

    def script(sequence: Sequence, row: int) -> Iterable[int]:
        return (
            echoes(sequence, row)
            if b"again" in bytes(it for it in sequence.prompt if it < 256)
            else says("Hé!")(sequence, row)
        )

    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        async with scripted_registry(ScriptedLoader(scripted_memory(), script=script), root) as registry:
            yield create_app(Settings(api_keys=("sk-right",), default_model="tiny"), registry=registry)

    with live(make) as url:
        yield url


@pytest.fixture
def run(url: str, tmp_path: Path) -> Callable[..., str]:
    """Run a command; what it prints on standard output, with the exit code it must end with."""

    def run(*arguments: str, code: Exit = Exit.DONE, stdin: str | None = None, at: str = url, **environ: Any) -> str:
        known = {"SWITCHYARD_URL": at, "SWITCHYARD_KEY": "sk-right", "HF_HUB_CACHE": str(tmp_path / "hub")}
        done = CliRunner(env=known | environ).invoke(switchyard, arguments, input=stdin)
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done.stdout if code == Exit.DONE else done.stderr

    return run


def test_models_are_listed_loaded_shown_and_unloaded(run: Callable[..., str]) -> None:
    assert ["org/tiny", "-", "on", "disk", "-"] in [line.split() for line in run("list").splitlines()]
    assert run("load", "org/tiny") == "org/tiny is in memory, 100 B\n"
    shown = run("show", "org/tiny")
    assert "state         in memory" in shown
    assert "together      prompts and answers\n" in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["temperature", "1", "default"] in lines
    assert ["kv_bits", "not", "quantised", "default"] in lines
    told = msgspec.json.decode(run("show", "org/tiny", "--json"))
    assert told["together"]["lengths"] is True
    assert {"name": "top_k", "value": 0, "words": "off", "origin": "default"} in told["settings"]["chat"]
    running = run("ps")
    assert running.splitlines()[1].startswith("org/tiny  in memory  100 B")
    assert "memory: 100 B of " in running
    assert run("unload", "org/tiny") == "org/tiny is on disk\n"
    assert "No model is in memory." in run("ps")


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ((True, True, True, True, True), "prompts and answers"),
        ((False, True, True, True, True), "answers"),
        ((False, True, False, False, True), "answers to more than a few tokens, a pass for each class of lengths"),
        ((True, True, True, True, False), "prompts and answers, no step built ahead"),
        ((False, False, False, False, True), "nothing: prompts and answers take turns"),
    ],
)
def test_what_rows_do_together_is_told_in_words(found: tuple[bool, ...], told: str) -> None:
    names = AdminTogether.__struct_fields__
    assert _together(AdminTogether(**dict(zip(names, found, strict=True)))) == told
    assert _together(None) == "-"


@pytest.mark.parametrize("command", ["list", "ps", "show tiny", "load tiny", "unload tiny", "config show"])
def test_every_command_can_speak_json(run: Callable[..., str], command: str) -> None:
    assert msgspec.json.decode(run(*command.split(), "--json"))


def test_complete_prints_the_continuation_alone(run: Callable[..., str]) -> None:
    assert run("complete", "tiny", "Say") == "Hé!\n"
    assert run("complete", "tiny", stdin="Say") == "Hé!\n"
    told = msgspec.json.decode(run("complete", "tiny", "Say", "--max-tokens", "2", "--json"))
    assert (told["finish_reason"], told["completion_tokens"]) == ("length", 2)
    assert told["first_token_seconds"] >= 0


def test_chat_answers_what_comes_through_a_pipe(run: Callable[..., str]) -> None:
    assert run("chat", "tiny", stdin="Hello\n") == "Hé!\n"
    assert "<system>Short.\n<user>again" in run("chat", "tiny", "--system", "Short.", stdin="again\n")


def test_ps_watches_until_the_service_goes(url: str, run: Callable[..., str]) -> None:
    events = Client(url, "sk-right").stream("GET", "/admin/events", AdminEvent)
    state = next(events)
    assert "org/other" not in picture(state)
    asking = threading.Thread(target=run, args=("load", "org/other"))
    asking.start()
    while "org/other  in memory" not in picture(state):
        state = merged(state, next(events))
    asking.join()
    assert isinstance(events, Generator)
    events.close()
    run("unload", "org/other")


def test_refusals_are_one_line_and_a_code(run: Callable[..., str]) -> None:
    assert "org/gone" in run("load", "org/gone", code=Exit.REFUSED)
    assert "API key" in run("list", code=Exit.REFUSED, SWITCHYARD_KEY="sk-wrong")
    assert "temperature" in run("complete", "tiny", "x", "--temperature", "9", code=Exit.REFUSED)
    line = run("load", "tiny", code=Exit.NO_SERVER, at=NOWHERE)
    assert line == f"switchyard: nothing answers at {NOWHERE}; start the service, or name it with --url\n"
    assert "not a model of the hub" in run("rm", "tiny", code=Exit.REFUSED)


def test_without_a_service_the_disk_is_looked_at(tmp_path: Path) -> None:
    """In processes of their own: the hub's client reads its variables when it is imported."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("SWITCHYARD_", "HF_"))}

    def run(*arguments: str, code: Exit = Exit.DONE) -> str:
        command = [sys.executable, "-m", "app", *arguments]
        done = subprocess.run(command, env=known | environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        return done.stdout if code == Exit.DONE else done.stderr

    with LocalHub() as hub:
        hub.add("org/pulled", make_tiny(tmp_path / "pulled", seed=5))
        environ = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "SWITCHYARD_PORT": "1"}
        assert msgspec.json.decode(run("pull", "org/pulled", "--json"))["state"] == "done"
        assert "org/none" in run("pull", "org/none", code=Exit.NOT_FETCHED)
    assert "org/pulled" in run("list")
    shown = msgspec.json.decode(run("show", "org/pulled", "--json"))
    assert (shown["state"], shown["architecture"], shown["context_length"]) == ("on_disk", "llama", 2048)
    assert shown["weight_bytes"] > 10_000
    assert {"name": "context_length", "value": 2048, "words": "", "origin": "config.json"} in shown["settings"]["model"]
    assert "org/pulled is removed" in run("rm", "org/pulled")
    assert "org/pulled" not in run("list")
    assert "no model org/pulled" in run("show", "org/pulled", code=Exit.REFUSED)


def test_settings_are_shown_with_their_origin_and_no_secret(run: Callable[..., str]) -> None:
    shown = run("config", "show", "--port", "81", SWITCHYARD_API_KEYS="sk-hidden", SWITCHYARD_OFFLINE="1")
    assert "sk-hidden" not in shown
    lines = {line.split()[0]: line.split() for line in shown.splitlines() if line}
    assert lines["port"][1:] == ["81", "flag", "--port"]
    assert lines["offline"][1:] == ["true", "environment", "SWITCHYARD_OFFLINE"]
    assert lines["api_keys"][1:3] == ["(set)", "environment"]


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --no-files")]
)
def test_shells_are_taught_to_complete(run: Callable[..., str], shell: str, word: str) -> None:
    assert word in run("completion", shell)


@pytest.mark.parametrize(
    ("shell", "arguments", "asked"),
    [
        ("zsh", ("-f", "-i"), "print ${_comps[switchyard]}"),  # as with a ~/.zshrc that holds this line alone
        ("bash", ("--norc", "--noprofile"), "complete -p switchyard"),
        ("fish", ("--no-config",), "complete -c switchyard"),
    ],
)
def test_a_shell_without_any_configuration_learns_to_complete(
    run: Callable[..., str], tmp_path: Path, shell: str, arguments: tuple[str, ...], asked: str
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    script = tmp_path / "completion"
    script.write_text(run("completion", shell))
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ZDOTDIR": str(tmp_path), "TERM": "dumb"}
    done = subprocess.run(
        [shell, *arguments, "-c", f"source {script}; {asked}"], env=environ, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "switchyard" in done.stdout


def test_an_old_bash_is_told_what_to_use_instead(run: Callable[..., str], tmp_path: Path) -> None:
    script = run("completion", "bash").replace("BASH_VERSINFO", "OLD").replace("BASH_VERSION", "SAID")
    program = f"OLD=(3 2); SAID=3.2.57\n{script}\ncomplete -p switchyard"
    done = subprocess.run([str(shutil.which("bash")), "--norc", "-c", program], capture_output=True, text=True)
    assert "bash 3.2.57 cannot complete commands; use zsh" in done.stderr
    assert done.returncode != 0


def test_model_names_are_completed(run: Callable[..., str]) -> None:
    assert run("list")
    with CliRunner().isolation(env={"SWITCHYARD_KEY": "sk-right"}):
        assert known_models(None, None, "org/") == []


class Typed:
    """Lines as a person types them."""

    def __init__(self, *lines: str) -> None:
        self._lines = list(lines)

    def __call__(self, _prompt: str = "") -> str:
        if not self._lines:
            raise EOFError
        return self._lines.pop(0)


def test_messages_may_have_several_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", Typed("one", "", "two \\", "lines", '"""', "a", 'b"""', "last"))
    assert [_message() for _ in range(5)] == ["one", "two \nlines", "a\nb", "last", None]


def test_what_is_kept_on_disk_is_shown_and_removed(run: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    flags = ("--disk-cache-dir", str(folder), "--disk-cache", "3GB")
    assert "0 files removed" in run("cache", "clear", *flags)
    (folder / ("a" * 32)).mkdir(parents=True)
    (folder / ("a" * 32) / ("b" * 32 + ".keys")).write_bytes(bytes(2_000_000))
    (folder / "mine").write_text("something else")
    shown = run("cache", "show", *flags)
    assert shown.splitlines()[0] == f"{folder}: 2 MB of 3.0 GB"
    assert "a" * 32 in shown
    told = msgspec.json.decode(run("cache", "show", "--json", *flags))
    assert (told["limit"], told["models"][0]["files"], told["models"][0]["nbytes"]) == (3 * 10**9, 1, 2_000_000)
    assert run("cache", "clear", *flags).strip() == "1 files removed, 2 MB"
    assert msgspec.json.decode(run("cache", "clear", "--json", *flags)) == {"files": 0, "freed": 0}
    assert [path.name for path in folder.iterdir()] == ["mine"]
    assert "nothing is written" in run("cache", "show", "--disk-cache-dir", str(folder), "--disk-cache", "0")
