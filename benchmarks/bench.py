"""What every measurement is given: where its models are, and how often it measures."""

import subprocess
import sys
from pathlib import Path

import msgspec

from benchmarks import servers
from benchmarks.lines import Child


class Bench(msgspec.Struct):
    """``home`` holds the models; each comparison takes ``rounds`` turns."""

    home: Path
    rounds: int

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
        self.make("smollm2")
        return "SmolLM2-135M-Instruct-float32"

    def floor(self, name: str) -> Child:
        """The yardstick over the model ``name``."""
        return Child("benchmarks.floor", str(self.home / name), env=servers.environment())
