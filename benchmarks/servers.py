"""The service and mlx_lm.server as child processes: started, waited for, warmed up, and always ended by their pid."""

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

from benchmarks.client import HOST, Answer, Load
from benchmarks.traffic import chat, drive

START_SECONDS = 300
STOP_SECONDS = 15


def environment() -> dict[str, str]:
    """Variables for every measured program: no hub, and OpenBLAS under MLX on a Linux CPU, the same for all."""
    found = subprocess.run(
        [sys.executable, "-m", "app.engine.native"], capture_output=True, text=True, check=True
    ).stdout.split()
    variables = dict(variable.split("=", 1) for variable in found)
    return os.environ | variables | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


class Server:
    """A server below ``root``, a directory of model directories. ``names`` are the models to warm up, by directory."""

    def __init__(self, label: str, root: Path, names: tuple[str, ...], command: list[str], *, full_paths: bool) -> None:
        self.label = label
        self._root = root
        self._names = names
        self.command = command
        self._full_paths = full_paths

    def __enter__(self) -> Self:
        self.port = free_port()
        self._log = tempfile.TemporaryFile()
        command = [*self.command, "--port", str(self.port)]
        self._process = subprocess.Popen(  # noqa: S603  our own programs
            command, env=environment(), stdout=self._log, stderr=self._log
        )
        try:
            self._wait()
            self._warm_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    @property
    def pid(self) -> int:
        """The server's process; the service restarts itself under the same one."""
        return self._process.pid

    def model(self, name: str) -> str:
        """How requests name the model in directory ``name``."""
        return str(self._root / name) if self._full_paths else name

    def drive(self, load: Load) -> list[Answer]:
        """Run ``load`` against this server."""
        load.port = self.port
        return drive(load)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not is_healthy(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                raise RuntimeError(f"{self.label} did not start: {self._log.read()[-2000:].decode(errors='replace')}")
            time.sleep(0.05)

    def _warm_up(self) -> None:
        """Load every model and let each kind of work compile its kernels."""
        for name in self._names:
            for sampled in (False, True):
                for rows in (1, 4):
                    texts = [f"Warm up {sampled} {rows} {row}" for row in range(rows)]
                    asks = [chat(self.model(name), text, 4, sampled=sampled) for text in texts]
                    self.drive(Load(0, asks))


def ours(root: Path, *names: str, flags: tuple[str, ...] = ()) -> Server:
    """The service as it is installed, serving every directory below ``root``."""
    command = [sys.executable, "-m", "app", "serve", "--offline", "--log-level", "warning", "--model-root", str(root)]
    return Server("switchyard", root, names, [*command, *flags], full_paths=False)


def theirs(root: Path, *names: str, flags: tuple[str, ...] = ()) -> Server:
    """mlx_lm.server as it is installed, started with the first model."""
    command = [sys.executable, "-m", "mlx_lm", "server", "--log-level", "ERROR", "--model", str(root / names[0])]
    return Server("mlx_lm.server", root, names, [*command, *flags], full_paths=True)


def is_healthy(port: int) -> bool:
    """Whether a server on ``port`` answers GET /health with 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return sock.getsockname()[1]
