"""The service under launchd and systemd: what is written for them, and what they are told, by stand-ins of theirs."""

import os
import plistlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from app.cli.exits import Exit
from app.cli.root import switchyard
from app.cli.run import launched
from app.cli.system import managers, service, unit
from app.cli.system.managers import Launchd, Systemd

LAUNCHCTL = """#!/bin/sh
# Loaded agents are files below $STATE; one that was booted out stays for as many looks as $SLOW says.
echo "$*" >>"$STATE/asked"
domain_of() { case $1 in gui/*) [ -z "$HEADLESS" ];; *) true;; esac; }
case $1 in
  print)
    file=$STATE/$(echo "$2" | tr / _)
    case $2 in
      */*/*) ;;
      *) domain_of "$2" && exit 0; exit 113 ;;
    esac
    if [ -f "$file.leaving" ]; then
      left=$(cat "$file.leaving")
      if [ "$left" -le 0 ]; then rm -f "$file" "$file.leaving"; else echo $((left - 1)) >"$file.leaving"; fi
    fi
    [ -f "$file" ] && cat "$file" || { echo "Could not find service" >&2; exit 113; } ;;
  bootout)
    file=$STATE/$(echo "$2" | tr / _)
    [ -f "$file" ] || exit 3
    echo "${SLOW:-0}" >"$file.leaving" ;;
  bootstrap)
    file=$STATE/$(echo "$2" | tr / _)_io.github.switchyard
    domain_of "$2" || exit 125
    [ -f "$file" ] && { echo "Bootstrap failed: 5: Input/output error" >&2; exit 5; }
    if [ -n "$HICCUP" ] && [ ! -f "$STATE/hiccup" ]; then touch "$STATE/hiccup"; exit 5; fi
    cat "$3" >"$file" ;;
esac
"""
AGENT = "io.github.switchyard"


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and a launchctl on PATH."""
    for name in unit.KEPT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    program = tmp_path / "bin" / "launchctl"
    program.parent.mkdir()
    program.write_text(LAUNCHCTL)
    program.chmod(0o755)
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("STATE", str(tmp_path / "state"))
    monkeypatch.setattr(managers, "_POLL", 0.01)
    monkeypatch.setattr(service, "manager", lambda: managers.Launchd(tmp_path / "home", 501))
    return tmp_path


def call(*words: str, code: int | Exit = 0) -> Result:
    done = CliRunner().invoke(switchyard, ["service", *words])
    assert done.exit_code == code, done.output
    return done


def asked(mac: Path) -> list[str]:
    lines = (mac / "state" / "asked").read_text().splitlines()
    (mac / "state" / "asked").unlink()
    return [line.replace(str(mac), "") for line in lines if not line.startswith("print")]


def agent(mac: Path) -> Path:
    return mac / "home" / "Library" / "LaunchAgents" / f"{AGENT}.plist"


def test_installing_again_takes_the_old_one_out_and_waits_until_it_is_gone(
    mac: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("install")
    bootstrap = f"bootstrap gui/501 /home/Library/LaunchAgents/{AGENT}.plist"
    assert asked(mac) == [f"enable gui/501/{AGENT}", bootstrap]
    monkeypatch.setenv("SLOW", "5")
    monkeypatch.setenv("HF_HOME", "/Users/me/models")
    call("install")
    assert asked(mac) == [f"bootout gui/501/{AGENT}", f"enable gui/501/{AGENT}", bootstrap]
    assert "/Users/me/models" in (mac / "state" / f"gui_501_{AGENT}").read_text()
    call("status")
    call("uninstall")
    assert not agent(mac).exists()
    assert call("status", code=Exit.FAILED).stderr.count("\n") >= 1
    call("uninstall", code=Exit.USAGE)
    call("install")


def test_a_mac_that_is_reached_by_ssh_alone_has_a_domain_too(mac: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLESS", "1")
    call("install")
    assert asked(mac)[-1].startswith("bootstrap user/501 ")
    assert plistlib.loads(agent(mac).read_bytes())["LimitLoadToSessionType"] == "Background"
    monkeypatch.delenv("HEADLESS")
    call("install")
    assert [line.split()[:2] for line in asked(mac)] == [
        ["bootout", f"user/501/{AGENT}"],
        ["enable", f"gui/501/{AGENT}"],
        ["bootstrap", "gui/501"],
    ]
    assert plistlib.loads(agent(mac).read_bytes())["LimitLoadToSessionType"] == "Aqua"


def test_launchd_may_refuse_once(mac: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HICCUP", "1")
    call("install")
    assert len([line for line in asked(mac) if line.startswith("bootstrap")]) == 2


def test_an_agent_that_does_not_go_is_said(mac: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call("install")
    monkeypatch.setenv("SLOW", "100000")
    monkeypatch.setattr(managers, "PATIENCE", -9.8)
    assert "launchctl kill KILL gui/501" in call("install", code=Exit.FAILED).stderr


def test_the_agent_keeps_what_the_shell_knows_of_the_hub_and_no_secret(
    mac: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {name: f"/some/{name}" for name in unit.KEPT}
    for name, value in (given | {"HF_TOKEN": "hf_secret", "OTHER": "x"}).items():
        monkeypatch.setenv(name, value)
    said = call("install", "--no-start").stderr
    read = plistlib.loads(agent(mac).read_bytes())
    log = str(mac / "home" / "Library" / "Logs" / "switchyard.log")
    assert read["EnvironmentVariables"] == given | {unit.LAUNCHED: log}
    assert b"hf_secret" not in agent(mac).read_bytes()
    assert "HF_TOKEN is not kept" in said
    assert agent(mac).stat().st_mode & 0o777 == 0o600
    assert read["ProgramArguments"][1:] == ["-m", "app", "serve"]
    assert (read["KeepAlive"], read["StandardErrorPath"]) == ({"SuccessfulExit": False}, log)
    assert read["ExitTimeOut"] > 10


@pytest.mark.parametrize("folder", ["Documents", "Desktop", "Downloads/deep", "Library/Mobile Documents/x"])
@pytest.mark.parametrize("what", ["config", "HF_HOME"])
def test_folders_that_macos_guards_are_warned_of(
    mac: Path, monkeypatch: pytest.MonkeyPatch, folder: str, what: str
) -> None:
    place = mac / "home" / folder / "switchyard"
    place.mkdir(parents=True)
    words = []
    if what == "config":
        (place / "my.toml").write_text("port = 9000")
        words = ["--config", str(place / "my.toml")]
    else:
        monkeypatch.setenv(what, str(place))
    said = call("install", "--no-start", *words).stderr
    assert str(place) in said
    assert "Full Disk Access" in said


def test_an_ordinary_place_is_not_warned_of(mac: Path) -> None:
    (mac / "home").mkdir()
    (mac / "home" / "my.toml").write_text("port = 9000")
    assert call("install", "--no-start", "--config", str(mac / "home" / "my.toml")).stderr == ""


@pytest.mark.parametrize("code", list(Exit))
def test_only_what_starting_again_may_mend_is_started_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: Exit
) -> None:
    assert launched.final(code) == code
    monkeypatch.setenv(unit.LAUNCHED, "/somewhere")
    ended = launched.final(code)
    assert ended == (Exit.DONE if code in unit.NEVER_AGAIN else code)
    assert ("ended for good" in capsys.readouterr().err) == (code in unit.NEVER_AGAIN)


@pytest.mark.parametrize(
    "words", [["serve", "--no-such-flag"], ["serve", "--port", "x"], ["serve", "--host", "0.0.0.0"]]
)
def test_a_launched_service_that_cannot_start_is_not_started_for_ever(words: list[str]) -> None:
    environ = os.environ | {unit.LAUNCHED: "/somewhere", "LD_PRELOAD": ""}
    for variables, code in ((environ, 0), (environ | {unit.LAUNCHED: ""}, Exit.USAGE)):
        done = subprocess.run([sys.executable, "-m", "app", *words], env=variables, capture_output=True, text=True)
        assert done.returncode == code, done.stderr


def test_logs_are_turned_over_where_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "switchyard.log"
    with file.open("a") as writer:  # as launchd has it open
        for number in range(6):
            writer.write(f"{number}" * 100)
            writer.flush()
            launched.turn_over(file, limit=50)
            launched.turn_over(file, limit=50)
        writer.write("last")
    kept = {it.name: it.read_text()[0] for it in tmp_path.iterdir()}
    assert kept == {"switchyard.log": "l", "switchyard.log.1": "5", "switchyard.log.2": "4", "switchyard.log.3": "3"}


def test_a_log_that_is_small_or_not_there_is_let_be(tmp_path: Path) -> None:
    launched.turn_over(tmp_path / "none")
    (tmp_path / "log").write_text("short")
    launched.turn_over(tmp_path / "log")
    assert [it.name for it in tmp_path.iterdir()] == ["log"]


SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$STATE/asked"
"""


@pytest.fixture
def linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("STATE", str(tmp_path))
    monkeypatch.setattr(service, "manager", lambda: managers.Systemd(tmp_path / "config"))
    return tmp_path


def test_systemd_runs_what_was_installed_last(linux: Path) -> None:
    config = linux / "my.toml"
    config.write_text("port = 9000")
    file = linux / "config" / "systemd" / "user" / "switchyard.service"
    call("install", "--config", str(config))
    assert str(config) in file.read_text()
    call("uninstall")
    assert not file.exists()
    assert (linux / "asked").read_text().splitlines() == [
        "--user daemon-reload",
        "--user enable switchyard",
        "--user restart switchyard",
        "--user disable --now switchyard",
        "--user daemon-reload",
    ]
    call("uninstall", code=Exit.USAGE)


def test_a_manager_that_fails_is_named(linux: Path) -> None:
    (linux / "bin" / "systemctl").write_text("#!/bin/sh\nexit 4\n")
    assert "`systemctl --user daemon-reload` failed" in call("install", code=Exit.FAILED).stderr


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    environ = {"HF_HOME": "/data/my models", "HTTPS_PROXY": 'http://me:p%40"$x\\@proxy:1'}
    text = unit.systemd(tmp_path / "my settings 100%.toml", grace=10, environ=environ)
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "OOMPolicy=continue", "ExecReload="):
        assert line in text
    assert "100%%.toml" in text
    assert '"-/data/my models"' in text
    if analyze := shutil.which("systemd-analyze"):
        file = tmp_path / "switchyard.service"
        file.write_text(text)
        done = subprocess.run([analyze, "verify", "--user", file], capture_output=True, text=True)
        assert "switchyard.service" not in done.stderr, done.stderr


@given(
    st.dictionaries(
        st.sampled_from(unit.KEPT), st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]))
    )
)
def test_variables_reach_a_unit_as_they_are(environ: dict[str, str]) -> None:
    lines = unit.systemd(None, grace=10, environ=unit.kept(environ)).splitlines()
    read = [
        shlex.split(line.removeprefix("Environment=").replace("%%", "%"))[0] for line in lines if line.startswith("Env")
    ]
    assert dict(it.split("=", 1) for it in read) == {name: value for name, value in environ.items() if value}


@pytest.mark.parametrize(("platform", "kind"), [("darwin", managers.Launchd), ("linux", managers.Systemd)])
def test_each_system_has_its_manager(
    platform: str, kind: type[Launchd | Systemd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    made = managers.manager()
    assert isinstance(made, kind)
    assert made.file.is_relative_to(Path.home()) or "XDG_CONFIG_HOME" in os.environ
