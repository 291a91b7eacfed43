"""The program itself: signals at every moment, files read again, certificates, and an end that is always clean."""

import json
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from signal import Signals

import pytest

from tests.faults.wire import post
from tests.support.process import service
from tests.support.tiny import make_tiny

ROOT = Path(__file__).parents[2]
STREAM = b'{"model": "tiny", "prompt": "Hi", "max_tokens": 1900, "stream": true, "ignore_eos": true}'


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    make_tiny(root / "tiny", seed=1)
    return root


def flags(root: Path) -> list[str]:
    return ["--offline", "--model-root", str(root), "--default-model", "tiny"]


def begin(url: str, body: bytes = STREAM) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    line = socket.create_connection((host, int(port)))
    line.sendall(post("/v1/completions", body))
    return line


def rest(line: socket.socket) -> bytes:
    line.settimeout(20)
    received = b""
    while piece := line.recv(65536):
        received += piece
    return received


@pytest.mark.parametrize(
    ("moment", "sent"), [("idle", signal.SIGINT), ("loading", signal.SIGTERM), ("streaming", signal.SIGINT)]
)
def test_a_signal_ends_it_cleanly(root: Path, sent: Signals, moment: str) -> None:
    with service(*flags(root), "--stop-grace", "0.3") as running:
        lines = []
        if moment != "idle":
            lines = [begin(running.url) for _ in range(3)]
        if moment == "streaming":
            lines[0].settimeout(20)
            while b"data:" not in lines[0].recv(65536):
                pass
        running.process.send_signal(sent)
        assert running.process.wait(20) == 0, running.log
        for line in lines:
            last = rest(line)
            assert not last or b"stopping" in last or b"[DONE]" in last or b" 503 " in last, last[-300:]
            line.close()
        for word in ("Traceback", "terminate called", "Abort", "leaked"):
            assert word not in running.log


def test_it_stops_at_a_random_moment_of_its_start() -> None:
    chance = random.Random(7)  # noqa: S311
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve", "--port", "0", "--offline"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        time.sleep(chance.uniform(0.05, 1.2))
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
        assert process.returncode in {0, -signal.SIGTERM, 128 + signal.SIGTERM}
        assert "Traceback" not in out
        assert "terminate called" not in out


def test_a_hangup_reads_models_again_without_dropping_a_stream(root: Path, tmp_path: Path) -> None:
    config, models = tmp_path / "my.toml", tmp_path / "models.toml"
    config.write_text("")
    models.write_text("")
    with service(*flags(root), "--config", str(config)) as running:
        line = begin(running.url, STREAM.replace(b"1900", b"700"))
        line.settimeout(20)
        received = line.recv(65536)
        models.write_text('[models.tiny]\naliases = ["nick"]\n')
        running.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 5
        while "reloaded" not in running.log and time.monotonic() < deadline:
            time.sleep(0.02)
        asked = urllib.request.Request(  # noqa: S310
            f"{running.url}/v1/completions", b'{"model": "nick", "max_tokens": 2}', {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=20) as answer:  # noqa: S310
            assert json.load(answer)["model"] == "tiny"
        models.write_text("[models.tiny]\ncolour = 1\n")
        running.process.send_signal(signal.SIGHUP)
        while "not reloaded" not in running.log and time.monotonic() < deadline + 5:
            time.sleep(0.02)
        assert "colour" in running.log
        assert (received + rest(line)).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        line.close()


def test_it_speaks_tls_with_a_certificate(root: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        [
            *("/usr/bin/openssl", "req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", key, "-out", certificate),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("needs openssl")
    with service(*flags(root), "--tls-certificate", str(certificate), "--tls-key", str(key)) as running:
        assert running.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(certificate))
        with urllib.request.urlopen(f"{running.url}/health", context=context, timeout=10) as answer:  # noqa: S310
            assert json.load(answer) == {"status": "ok"}


def test_what_is_no_certificate_is_said_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    file.write_text("no certificate")
    done = subprocess.run(
        [sys.executable, "-m", "app", "serve", "--port", "0", "--tls-certificate", file, "--tls-key", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "PEM" in done.stderr
    assert done.stderr.count("\n") == 1
