import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any

import pytest
from click.testing import CliRunner

from app import __version__
from app.cli.exits import Exit
from app.cli.look.pull import resolve
from app.cli.options import effective_settings
from app.cli.root import switchyard
from app.cli.run.welcome import base_url, welcome
from app.engine import native
from app.settings import ModelEntry, Settings
from app.settings.fields import setting_fields

ROOT = Path(__file__).parents[1]
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHYARD_")}


def run(*arguments: str, **environ: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        env=PLAIN | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_answers_at_once() -> None:
    """0.25 s of processor time alone on a machine; what else the machine does is not counted, but slows this down."""
    times = []
    for _ in range(3):
        before = getrusage(RUSAGE_CHILDREN)
        assert run("--help", LD_PRELOAD="").returncode == 0
        after = getrusage(RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.6


def test_the_version_is_the_packages() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"switchyard, version {__version__}")


def test_every_setting_that_is_no_secret_has_a_flag() -> None:
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(switchyard, ["serve", "--help"]).output
    for field in setting_fields().values():
        assert (field.flag is None) == field.secret
        if field.flag is not None:
            assert f"{field.flag} " in shown or f"{field.flag}/" in shown
    assert "api-key" not in shown


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["--port", "eighty"], {}, "--port: "),
        (["--config", "gone.toml"], {}, "gone.toml: there is no such file"),
        (["--model-root", "gone"], {}, "there is no directory"),
        ([], {"SWITCHYARD_PROT": "1"}, "did you mean SWITCHYARD_PORT?"),
    ],
)
def test_wrong_settings_end_the_start_with_one_line(arguments: list[str], environ: dict[str, str], said: str) -> None:
    done = run("serve", *arguments, **environ)
    assert done.returncode == Exit.USAGE
    assert done.stdout == ""
    assert done.stderr.startswith("switchyard: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_an_unknown_flag_is_a_usage_error() -> None:
    done = run("serve", "--prot", "1")
    assert done.returncode == Exit.USAGE
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--port", str(port))
    assert done.returncode == Exit.PORT_TAKEN
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_of_another_machine_is_said_in_one_line() -> None:
    done = run("serve", "--host", "192.0.2.1", "--open-to-network")
    assert done.returncode == Exit.PORT_TAKEN
    assert "--host" in done.stderr
    assert "Traceback" not in done.stderr


def test_flags_that_were_not_given_change_nothing() -> None:
    found = effective_settings(None, {}, {"port": None, "model_roots": (), "offline": False, "queue_limit": "7"})
    assert found.settings.queue_limit == 7
    assert {name for name, origin in found.origins.items() if origin.startswith("flag")} == {"offline", "queue_limit"}


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("box.local", "http://box.local:80"),
    ],
)
def test_the_url_can_be_reached(host: str, url: str) -> None:
    assert base_url(host, 80) == url


def test_the_welcome_runs_as_it_stands_and_shows_no_key() -> None:
    settings = Settings(api_keys=("sk-hidden",), models={Settings().default_model: ModelEntry(aliases=("short",))})
    text = welcome("1", "http://127.0.0.1:8000", settings)
    snippet = "\n".join(line.strip() for line in text.splitlines() if line.startswith("  "))
    python = snippet[snippet.index("from openai") :]
    compile(python, "snippet", "exec")
    assert len(python.splitlines()) == 5
    assert "sk-hidden" not in text
    assert 'model="short"' in text
    assert "Authorization: Bearer YOUR_KEY" in text
    assert "Authorization" not in welcome("1", "http://127.0.0.1:8000", Settings())


def test_pull_knows_aliases_and_revisions() -> None:
    settings = Settings(models={"org/name": ModelEntry(aliases=("short",), revision="v1")})
    assert resolve("short", settings) == ("org/name", "v1")
    assert resolve("org/name", settings) == ("org/name", "v1")
    assert resolve("short@v2", settings) == ("org/name", "v2")
    assert resolve("org/other@main", settings) == ("org/other", "main")
    assert resolve("org/other", settings) == ("org/other", None)


def test_pull_says_what_went_wrong_in_one_line() -> None:
    done = run("pull", "../elsewhere")
    assert done.returncode == Exit.NOT_FETCHED
    assert "owner/name" in done.stderr
    assert done.stderr.count("\n") == 1


def test_cores_are_those_of_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    quota = tmp_path / "cpu.max"
    for text, cores in [("max 100000", 8), ("150000 100000", 2), ("10000 100000", 1), ("9900000 100000", 8)]:
        quota.write_text(text)
        assert native.usable_cores(quota) == cores
    assert native.usable_cores(tmp_path / "gone") == 8


@pytest.mark.skipif(sys.platform != "linux", reason="Accelerate is part of macOS")
def test_a_process_that_computes_has_openblas_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LD_PRELOAD", "OPENBLAS_THREAD_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    if not (variables := native.variables()):
        pytest.skip("needs OpenBLAS and the CPU backend")
    program = (
        "import os; from pathlib import Path; from app.engine import native\n"
        "print('openblas' in Path('/proc/self/maps').read_text(), native.openblas_advice(), native.variables())\n"
        "print(os.environ['OPENBLAS_THREAD_TIMEOUT'])\n"
    )
    environ = PLAIN | {"PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["True None {}", native.SPIN], done.stderr


def test_without_openblas_the_person_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(native, "backend", lambda: "cpu")
    monkeypatch.setattr(native, "openblas", lambda: None)
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setattr(shutil, "which", lambda program: program if program == "dnf" else None)
    assert (native.openblas_advice() or "").endswith("dnf install openblas")
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert "apt-get install libopenblas0-pthread or dnf" in (native.openblas_advice() or "")


def test_no_backend_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "backend", lambda: None)
    done = CliRunner().invoke(switchyard, ["serve"])
    assert done.exit_code == Exit.NO_BACKEND
    assert "docker-free-run.sh" in done.stderr
