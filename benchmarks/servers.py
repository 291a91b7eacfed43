"""The service and mlx_lm.server as child processes: started, waited for, warmed up, and always ended by their pid."""

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from benchmarks.client import HOST, Answer, Load
from benchmarks.traffic import chat, drive

HERE = Path(__file__).parents[1]
"""The checkout that is measured."""
START_SECONDS = 300
STOP_SECONDS = 15
REST_SECONDS = 1.0
REST_SHARE = 0.02
"""A server rests once its processes have used less than this share of a core for so many seconds."""
REST_PATIENCE = 60.0
SERVE = (sys.executable, "-m", "app", "serve", "--offline", "--log-level", "warning")


def environment(*, computes: bool = True) -> dict[str, str]:
    """Variables for a measured program: no hub, and bytecode that is kept, as it is where people start programs.

    One that ``computes`` in its own process has OpenBLAS under MLX on a Linux CPU, as the service gives it to its own.
    """
    shared = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if not computes:
        return kept | shared
    found = subprocess.run(
        [sys.executable, "-m", "app.engine.native"], capture_output=True, text=True, check=True, cwd=HERE
    ).stdout.split()
    return kept | dict(variable.split("=", 1) for variable in found) | shared


class Server:
    """A server below ``root``, a directory of model directories. ``names`` are the models to warm up, by directory.

    ``checkout`` is the directory that its program is run in; ``computes`` says that it does so in its own process.
    """

    def __init__(
        self,
        label: str,
        root: Path,
        names: tuple[str, ...],
        command: list[str],
        *,
        checkout: Path = HERE,
        full_paths: bool = False,
        computes: bool = False,
    ) -> None:
        self.label = label
        self._root = root
        self._names = names
        self._command = command
        self._checkout = checkout
        self._full_paths = full_paths
        self._computes = computes

    def __enter__(self) -> Self:
        self.port = free_port()
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(  # noqa: S603  our own programs
            [*self._command, "--port", str(self.port)],
            env=environment(computes=self._computes),
            cwd=self._checkout,
            stdout=self._log,
            stderr=self._log,
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

    def processes(self) -> list[psutil.Process]:
        """The server's own process, and every one that it has started."""
        own = psutil.Process(self._process.pid)
        return [own, *own.children(recursive=True)]

    def resident(self) -> float:
        """MiB that all of its processes hold, pages that they share counted in each."""
        held = 0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                held += process.memory_info().rss
        return held / 2**20

    def rest(self) -> None:
        """Wait until its processes do nothing; raises RuntimeError when they never do."""
        deadline = time.monotonic() + REST_PATIENCE
        used = self._used()
        while time.monotonic() < deadline:
            time.sleep(REST_SECONDS)
            before, used = used, self._used()
            if used.keys() == before.keys() and sum(used.values()) - sum(before.values()) < REST_SHARE * REST_SECONDS:
                return
        raise RuntimeError(f"{self.label} does not come to rest")

    def _used(self) -> dict[int, float]:
        """Seconds of processor time, by process."""
        used = {}
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used[process.pid] = times.user + times.system
        return used

    def ask(self, method: str, path: str) -> bytes:
        """A request without a body, and what it is answered with; raises RuntimeError for anything but 200."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=START_SECONDS)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"{method} {path} was answered with {response.status}: {body[:300].decode()}")
        return body

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
    return version("switchyard", HERE, root, *names, flags=flags)


def version(label: str, checkout: Path, root: Path, *names: str, flags: tuple[str, ...] = ()) -> Server:
    """The service of another checkout, with the libraries that are installed here.

    This checkout's keeps nothing on disk unless ``flags`` say so: what a run has computed is not known to the next one.
    """
    if checkout == HERE:
        flags = ("--disk-cache", "0", *flags)
    return Server(label, root, names, [*SERVE, "--model-root", str(root), *flags], checkout=checkout)


def theirs(root: Path, *names: str, flags: tuple[str, ...] = ()) -> Server:
    """mlx_lm.server as it is installed, started with the first model."""
    command = [sys.executable, "-m", "mlx_lm", "server", "--log-level", "ERROR", "--model", str(root / names[0])]
    return Server("mlx_lm.server", root, names, [*command, *flags], full_paths=True, computes=True)


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
        return int(sock.getsockname()[1])
