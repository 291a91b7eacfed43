import socket
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec import structs

from app.cli.checkup import findings
from app.cli.exits import Exit
from app.cli.exposure import is_loopback
from app.cli.root import switchyard
from app.settings import Settings

HERE = Settings(offline=True)


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
