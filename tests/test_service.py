import plistlib
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec import structs

from app.cli import service, unit
from app.cli.checkup import findings
from app.cli.exits import Exit
from app.cli.exposure import is_loopback
from app.cli.root import switchyard
from app.settings import Settings

HERE = Settings(offline=True)


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    text = unit.systemd(tmp_path / "my settings 100%.toml", grace=10)
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "RestartForceExitStatus=7", "ExecReload="):
        assert line in text
    assert "100%%.toml" in text
    if analyze := shutil.which("systemd-analyze"):
        file = tmp_path / "switchyard.service"
        file.write_text(text)
        done = subprocess.run([analyze, "verify", "--user", file], capture_output=True, text=True)
        assert "switchyard.service" not in done.stderr, done.stderr


def test_the_agent_is_a_property_list(tmp_path):
    read = plistlib.loads(unit.launchd(None, grace=10, log=tmp_path / "log").encode())
    assert read["ProgramArguments"][1:] == ["-m", "app", "serve"]
    assert read["KeepAlive"] == {"SuccessfulExit": False}
    assert read["ExitTimeOut"] > 10


@pytest.mark.parametrize(
    ("platform", "place"),
    [("darwin", "Library/LaunchAgents/io.github.switchyard.plist"), ("linux", "systemd/user/switchyard.service")],
)
def test_each_system_has_its_place(platform, place, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert str(service.manager(platform, tmp_path).file).endswith(place)


def test_it_is_installed_and_removed_again(tmp_path, monkeypatch):
    said = []
    here = structs.replace(service.manager(home=tmp_path), file=tmp_path / "deep" / "file.service")
    monkeypatch.setattr(service, "manager", lambda: here)
    monkeypatch.setattr(service, "_run", lambda command, check=True: said.append(command) or 0)
    config = tmp_path / "my.toml"
    config.write_text("port = 9000")
    done = CliRunner().invoke(switchyard, ["service", "install", "--config", str(config)])
    assert done.exit_code == 0, done.output
    assert str(config) in here.file.read_text()
    assert said == list(here.start)
    assert CliRunner().invoke(switchyard, ["service", "uninstall"]).exit_code == 0
    assert not here.file.exists()
    assert CliRunner().invoke(switchyard, ["service", "uninstall"]).exit_code == Exit.USAGE


def found(settings: Settings, models: Path = Path("/nowhere")) -> dict[str, str]:
    return {it.what: it.verdict for it in findings(settings, models)}


def test_the_doctor_looks_at_everything(tmp_path):
    seen = found(HERE, tmp_path)
    assert {"backend", "memory", "keys", "port", "disk", "hub"} <= seen.keys()
    assert seen["backend"] == "ok"
    assert seen["keys"] == "ok"


@pytest.mark.parametrize(
    ("changes", "what", "verdict"),
    [
        ({"host": "0.0.0.0"}, "keys", "bad"),
        ({"host": "0.0.0.0", "open_to_network": True}, "keys", "look"),
        ({"host": "0.0.0.0", "api_keys": ("sk",)}, "keys", "look"),
        ({"api_keys": ("sk",)}, "keys", "ok"),
        ({"memory_budget": 1 << 60}, "memory", "bad"),
    ],
)
def test_the_doctor_finds(changes, what, verdict, tmp_path):
    assert found(structs.replace(HERE, **changes), tmp_path)[what] == verdict


def test_the_doctor_sees_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert found(structs.replace(HERE, port=taken.getsockname()[1]), tmp_path)["port"] == "look"


def test_the_doctor_sees_a_hub_that_is_away(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert found(Settings(), tmp_path)["hub"] == "look"


def test_the_doctors_exit_code_says_whether_it_would_start(monkeypatch):
    monkeypatch.setenv("SWITCHYARD_OFFLINE", "1")
    assert CliRunner().invoke(switchyard, ["doctor"]).exit_code == 0
    monkeypatch.setenv("SWITCHYARD_HOST", "0.0.0.0")
    assert CliRunner().invoke(switchyard, ["doctor"]).exit_code == 1


@pytest.mark.parametrize(
    ("host", "near"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False)]
)
def test_loopback_is_told_from_the_network(host, near):
    assert is_loopback(host) is near


@pytest.mark.parametrize("flags", [["--host", "0.0.0.0"], ["--host", "::"]])
def test_it_does_not_listen_to_the_network_without_keys(flags):
    done = CliRunner().invoke(switchyard, ["serve", *flags], env={"LD_PRELOAD": "blas"})
    assert done.exit_code == Exit.USAGE
    assert "SWITCHYARD_API_KEYS" in done.stderr
    assert done.stderr.count("\n") == 1


def test_half_a_certificate_is_a_usage_error(tmp_path):
    file = tmp_path / "cert.pem"
    file.write_text("x")
    done = CliRunner().invoke(switchyard, ["serve", "--tls-certificate", str(file)], env={"LD_PRELOAD": "blas"})
    assert done.exit_code == Exit.USAGE
    assert "tls_key" in done.stderr
