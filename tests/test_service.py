import os
import platform
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from app.cli.check import checkup
from app.cli.check.checkup import GIB, findings
from app.cli.check.client_settings import leads_elsewhere, led
from app.cli.check.models_here import troubles
from app.cli.exits import Exit
from app.cli.root import switchyard
from app.cli.run.exposure import is_loopback
from app.engine.mlx.memory import device
from app.settings import Settings
from tests.support.process import service

HERE = Settings(offline=True)


def found(settings: Settings, models: Path = Path("/nowhere")) -> dict[str, str]:
    return {it.what: it.verdict for it in findings(settings, models)}


def test_the_doctor_looks_at_everything(tmp_path: Path) -> None:
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
def test_the_doctor_finds(changes: dict[str, Any], what: str, verdict: str, tmp_path: Path) -> None:
    assert found(structs.replace(HERE, **changes), tmp_path)[what] == verdict


def test_the_doctor_sees_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert found(structs.replace(HERE, port=taken.getsockname()[1]), tmp_path)["port"] == "look"


def test_the_doctor_sees_that_the_service_runs_already(tmp_path: Path) -> None:
    with service("--offline") as running:
        (said,) = [
            it
            for it in findings(structs.replace(HERE, port=int(running.url.rpartition(":")[2])), tmp_path)
            if it.what == "port"
        ]
    assert (said.verdict, "already" in said.said) == ("ok", True)


def test_the_doctor_names_models_that_will_not_load_and_why(tmp_path: Path) -> None:
    from tests.support.tiny import make_tiny  # noqa: PLC0415  brings in MLX

    make_tiny(tmp_path / "right", seed=1)
    spoilt: dict[str, Callable[[Path], object]] = {
        "alien": lambda place: (place / "config.json").write_text('{"model_type": "alien"}'),
        "vague": lambda place: (place / "config.json").write_text("[]"),
        "cut": lambda place: (place / "model.safetensors").write_bytes(
            (place / "model.safetensors").read_bytes()[:-100]
        ),
    }
    for name, spoil in spoilt.items():
        shutil.copytree(tmp_path / "right", tmp_path / name)
        spoil(tmp_path / name)
    places = {path.name: path for path in tmp_path.iterdir()}
    told = dict(troubles(places, None))
    assert told.keys() == {"alien", "vague", "cut"}
    assert "alien" in told["alien"]
    assert "config.json" in told["vague"]
    assert "budget" in dict(troubles(places, 1000))["right"]


def test_the_doctor_finds_clients_that_are_led_elsewhere_and_shows_no_secret(tmp_path: Path) -> None:
    for place, text in {
        ".codex/config.toml": 'base_url = "http://127.0.0.1:9999/v1"\nkey = "sk-hidden"\n',
        ".qwen/settings.json": '{"a": "http://localhost:8000/v1", "b": "https://api.example.com", "c": "sk-hidden"}',
        ".claude/settings.json": "\x00\xff http://[::1]:8000",
    }.items():
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_text(text)
    told = list(led(tmp_path, {"OPENAI_BASE_URL": "http://me:sk-hidden@127.0.0.1:7000/v1?key=sk-hidden"}))
    assert {where: leads_elsewhere(url, 8000) for where, url in told} == {
        "OPENAI_BASE_URL": True,
        "~/.codex/config.toml": True,
        "~/.qwen/settings.json": False,
        "~/.claude/settings.json": False,
    }
    assert "hidden" not in str(told)


@given(st.text(max_size=40), st.integers(1, 65535))
def test_any_address_of_a_client_is_told_without_what_could_be_secret(url: str, port: int) -> None:
    ((where, told),) = led(Path("/nowhere"), {"OPENAI_BASE_URL": url or "x"})
    assert where == "OPENAI_BASE_URL"
    assert "@" not in told.partition("://")[2].partition("/")[0]
    leads_elsewhere(told, port)


def run_doctor(**environ: Any) -> dict[str, Any]:
    """In a process of its own: the hub's client reads its variables when it is imported."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("SWITCHYARD_", "HF_", "SSL_"))}
    done = subprocess.run([sys.executable, "-m", "app", "doctor"], env=known | environ, capture_output=True, text=True)
    return {line.split()[1]: line for line in done.stdout.splitlines()} | {"code": done.returncode}


def test_the_doctor_sees_a_hub_that_is_away() -> None:
    told = run_doctor(HF_ENDPOINT="http://127.0.0.1:9")
    assert told["hub"].startswith("look")
    assert "cannot be reached" in told["hub"]
    assert told["code"] == 0


def test_the_doctor_asks_with_the_certificates_of_a_download(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-nodes", "-days", "1", "-newkey", "rsa:2048", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"https://127.0.0.1:{server.server_address[1]}"
        refused = run_doctor(HF_ENDPOINT=url)["hub"]
        assert refused.startswith("look")
        assert "is not trusted here: self-signed certificate" in refused
        assert "SSL_CERT_FILE" in refused
        assert run_doctor(HF_ENDPOINT=url, SSL_CERT_FILE=str(certificate))["hub"].startswith("ok")
        server.shutdown()


MAC = {"arm64": ("arm64", "15.1"), "intel": ("x86_64", "15.1"), "old": ("arm64", "13.6.9"), "rosetta": ("x86_64", "")}


@pytest.mark.parametrize(("kind", "verdict"), [("arm64", "ok"), ("intel", "bad"), ("old", "bad"), ("rosetta", "bad")])
def test_the_doctor_knows_pythons_that_mlx_cannot_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, verdict: str
) -> None:
    machine, version = MAC[kind]
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(checkup, "SYSCTL", "/bin/false")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "mac_ver", lambda: (version, ("", "", ""), machine))
    assert checkup._python().verdict == verdict


@pytest.mark.parametrize(
    ("printed", "verdict", "words"),
    [
        ("0", "ok", "the system's own"),
        ("", "ok", "the system's own"),
        ("20480", "ok", "20480 MiB"),
        ("30000", "look", "leaves"),
    ],
)
def test_the_doctor_says_what_the_wired_limit_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, verdict: str, words: str
) -> None:
    sysctl = tmp_path / "sysctl"
    sysctl.write_text(f'#!/bin/sh\n[ "$*" = "-n iogpu.wired_limit_mb" ] && echo "{printed}"\n')
    sysctl.chmod(0o755)
    monkeypatch.setattr(checkup, "SYSCTL", str(sysctl))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(32 * GIB, 16 * GIB))
    seen = checkup._wired()
    assert (seen.verdict, words in seen.said) == (verdict, True)
    assert "iogpu.wired_limit_mb=N" in seen.said


class Memory(NamedTuple):
    total: int
    available: int


@pytest.mark.parametrize(
    ("budget", "verdict", "words"),
    [
        (None, "ok", "models can have 22.0 GiB, the budget is 16.5 GiB"),
        (20 * GIB, "ok", "the budget is 20.0 GiB"),
        (24 * GIB, "look", "more than the GPU may use"),
        (40 * GIB, "bad", "lower memory_budget"),
    ],
)
def test_the_doctor_says_the_budget_that_the_service_takes(
    monkeypatch: pytest.MonkeyPatch, budget: int | None, verdict: str, words: str
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(32 * GIB, 30 * GIB))
    seen = checkup._memory(structs.replace(HERE, memory_budget=budget), (22 * GIB, 165 * GIB // 10))
    assert seen.verdict == verdict
    assert words in seen.said
    assert checkup._memory(HERE, None).verdict == "bad"


def test_the_doctor_asks_mlx_itself_what_there_is() -> None:
    assert checkup._device_bytes() == (device().memory, device().default_budget)


def test_the_doctors_exit_code_says_whether_it_would_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHYARD_OFFLINE", "1")
    assert CliRunner().invoke(switchyard, ["doctor"]).exit_code == 0
    monkeypatch.setenv("SWITCHYARD_HOST", "0.0.0.0")
    assert CliRunner().invoke(switchyard, ["doctor"]).exit_code == 1


@pytest.mark.parametrize(
    ("host", "near"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False)]
)
def test_loopback_is_told_from_the_network(host: str, near: bool) -> None:
    assert is_loopback(host) is near


@pytest.mark.parametrize("flags", [["--host", "0.0.0.0"], ["--host", "::"]])
def test_it_does_not_listen_to_the_network_without_keys(flags: list[str]) -> None:
    done = CliRunner().invoke(switchyard, ["serve", *flags], env={"LD_PRELOAD": "blas"})
    assert done.exit_code == Exit.USAGE
    assert "SWITCHYARD_API_KEYS" in done.stderr
    assert done.stderr.count("\n") == 1


def test_half_a_certificate_is_a_usage_error(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    file.write_text("x")
    done = CliRunner().invoke(switchyard, ["serve", "--tls-certificate", str(file)], env={"LD_PRELOAD": "blas"})
    assert done.exit_code == Exit.USAGE
    assert "tls_key" in done.stderr
