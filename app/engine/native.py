"""The native side of a start: which MLX backend is installed, and OpenBLAS under it on a Linux CPU.

MLX's Linux CPU wheel carries the reference BLAS. OpenBLAS, loaded before it, takes over its symbols and makes float32
matrix products 10 to 60 times faster; a library can only be put first before the process starts, hence the restart.
mx.compile needs no care here: MLX looks for g++ itself and computes uncompiled without it.

``python -m app.engine.native`` prints the variables to set, for programs started with them: ``env $(...) pytest``.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

_NAMES = ("libopenblasp.so.0", "libopenblas.so.0", "libopenblasp.so", "libopenblas.so")

SPIN = "20"
"""OpenBLAS's idle threads spin for ``2**SPIN`` cycles before they sleep: the pauses between a model's matrix products,
not those between its steps, in which other threads need the cores. Its own default outlasts both.
"""

_INSTALL = {
    "apt-get": "apt-get install libopenblas0-pthread",
    "dnf": "dnf install openblas",
    "pacman": "pacman -S openblas",
}


def backend() -> Literal["metal", "cuda", "cpu"] | None:
    """The MLX backend that is installed, without importing it; None when there is none."""
    for kind in ("metal", "cuda", "cpu"):
        for name in _distributions(kind):
            try:
                importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                continue
            return kind
    return None


def _distributions(kind: Literal["metal", "cuda", "cpu"]) -> tuple[str, ...]:
    return {"metal": ("mlx-metal",), "cuda": ("mlx-cuda-13", "mlx-cuda-12"), "cpu": ("mlx-cpu",)}[kind]


def openblas() -> Path | None:
    """The system's OpenBLAS, the one with POSIX threads where there are several; None when there is none."""
    machine = platform.machine()
    folders = (
        f"/usr/lib/{machine}-linux-gnu/openblas-pthread",
        f"/usr/lib/{machine}-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib",
    )
    for folder in folders:
        for name in _NAMES:
            if (path := Path(folder, name)).exists():
                return path
    return _from_linker_cache()


def _from_linker_cache() -> Path | None:
    program = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if program is None:
        return None
    listing = subprocess.run([program, "-p"], capture_output=True, text=True, check=False).stdout  # noqa: S603  the system's own program
    for line in listing.splitlines():
        name, _, path = line.strip().partition(" ")
        if name in _NAMES and "=> " in path:
            return Path(path.partition("=> ")[2])
    return None


def variables() -> dict[str, str]:
    """What the environment of a process that computes needs beside what this one has: OpenBLAS first, on a Linux CPU.

    A library can only be put first before a process starts.
    """
    if not _lacks_blas() or (library := openblas()) is None:
        return {}
    return {
        "LD_PRELOAD": f"{library}:{os.environ.get('LD_PRELOAD', '')}".rstrip(":"),
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", str(usable_cores())),
        "OPENBLAS_THREAD_TIMEOUT": os.environ.get("OPENBLAS_THREAD_TIMEOUT", SPIN),
    }


def openblas_advice() -> str | None:
    """What the person can do where OpenBLAS would help and is missing."""
    if _lacks_blas() and openblas() is None:
        return f"without OpenBLAS matrix products are 10 times slower here; to get it: {how_to_install()}"
    return None


def _lacks_blas() -> bool:
    return sys.platform == "linux" and backend() == "cpu" and "blas" not in os.environ.get("LD_PRELOAD", "")


def how_to_install() -> str:
    """Commands that install OpenBLAS here."""
    here = [command for program, command in _INSTALL.items() if shutil.which(program)]
    return " or ".join(here or _INSTALL.values())


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: its affinity, and its cgroup's quota rounded up. At least 1."""
    cores = len(os.sched_getaffinity(0))
    try:
        allowance, period = quota.read_text(encoding="ascii").split()
        return max(1, min(cores, -(-int(allowance) // int(period))))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return cores


if __name__ == "__main__":
    sys.stdout.write(" ".join(f"{name}={value}" for name, value in variables().items()))
