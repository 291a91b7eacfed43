"""The service as people start it: its own process, its own port."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STARTED = re.compile(r"serves (https?://\S+)")


class Service:
    """A running ``serve``; ``url`` is where it answers, ``log`` what it has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self.url = ""
        self._output = output

    @property
    def log(self) -> str:
        return self._output.read_text(errors="replace")

    def wait_until_it_serves(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            found = STARTED.search(self.log)
            if found:
                self.url = found[1]
                return
            time.sleep(0.02)
        raise AssertionError(f"the service did not start:\n{self.log}")


@contextmanager
def service(*flags: str, seconds: float = 60, **environment: Any) -> Iterator[Service]:
    """``python -m app serve --port 0 FLAGS`` until the block ends; Ctrl-C ends it.

    No process waits for a next load, which few tests have, unless a flag or a variable says so.
    """
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "output"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve", "--port", "0", *flags],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={name: it for name, it in os.environ.items() if name != "SWITCHYARD_CLIENTS"}
                | {"SWITCHYARD_SPARE_PROCESS": "false"}
                | environment,
            )
        running = Service(process, output)
        try:
            running.wait_until_it_serves(seconds)
            yield running
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
