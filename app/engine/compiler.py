"""C of our own, compiled on the machine that runs it; everything works without it."""

import os
import subprocess
from pathlib import Path
from shutil import which

TIMEOUT_SECONDS = 60


def compile_library(source: Path, library: Path, *flags: str) -> None:
    """Make the shared ``library`` of ``source``, in tenths of a second.

    Raises OSError or SubprocessError where there is no compiler, or none that can do this.
    """
    compiler = which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise FileNotFoundError("there is no C compiler")
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), *flags]
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)  # noqa: S603  our own source
