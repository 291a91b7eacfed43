"""What every measurement is given: where its models are, and how often it measures."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from benchmarks import servers
from benchmarks.lines import Child
from benchmarks.servers import HERE, Server


class Bench(msgspec.Struct):
    """``home`` holds the models; each comparison takes ``rounds`` turns.

    ``against`` is another checkout of the project, whose service takes turns with this one's.
    """

    home: Path
    rounds: int
    against: Path | None = None

    @property
    def versions(self) -> dict[str, Path]:
        """The checkouts whose services are measured, this one first, by what they are called."""
        return {"switchyard": HERE} | ({} if self.against is None else {f"switchyard in {self.against}": self.against})

    @contextmanager
    def services(
        self, *names: str, flags: Callable[[Path], tuple[str, ...]] = lambda _checkout: ()
    ) -> Iterator[list[Server]]:
        """The service of every version, running and warmed up, with the flags that are right for a checkout."""
        with ExitStack() as stack:
            yield [
                stack.enter_context(servers.version(label, checkout, self.home, *names, flags=flags(checkout)))
                for label, checkout in self.versions.items()
            ]

    def make(self, *names: str) -> None:
        """Make models that are missing, each in a process of its own, which lets the device go again."""
        for name in names:
            subprocess.run(  # noqa: S603  our own program
                [sys.executable, "-m", "benchmarks.models", str(self.home), name],
                check=True,
                stdout=subprocess.DEVNULL,
                env=servers.environment(),
            )

    def smollm2(self) -> str:
        """The directory name of the real model in float32."""
        return self.directory("smollm2")

    def directory(self, name: str) -> str:
        """The name of the directory of a model, made if it is missing."""
        self.make(name)
        return "SmolLM2-135M-Instruct-float32" if name == "smollm2" else name

    def floor(self, name: str) -> Child:
        """The yardstick over the model ``name``."""
        return Child("benchmarks.floor", str(self.home / name), env=servers.environment())
