"""The native side of a start: which MLX backend is installed, and OpenBLAS under it on a Linux CPU.

MLX's Linux CPU wheel carries the reference BLAS. OpenBLAS, loaded before it, takes over its symbols and makes float32
matrix products 10 to 60 times faster; a library can only be put first before the process starts, hence the restart.
mx.compile needs no care here: MLX looks for g++ itself and computes uncompiled without it.

``python -m app.cli.native`` prints the variables to set, for programs started with them: ``env $(...) pytest``.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal, NoReturn

_RESTARTED = "_SWITCHYARD_RESTARTED"
"""Set in the restarted process; holds the LD_PRELOAD that children of the service shall see."""

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


def prefer_openblas() -> None:
    """Restart this process with OpenBLAS in front where that helps; returns in the restarted process, too.

    Call it before anything imports mlx, and before sockets or threads exist.
    """
    if _RESTARTED in os.environ:
        _forget_preload()
        return
    preload = os.environ.get("LD_PRELOAD", "")
    if _lacks_blas() and (library := openblas()) is not None:
        _restart(library, preload)


def openblas_advice() -> str | None:
    """What the person can do where OpenBLAS would help and is missing."""
    if _lacks_blas() and openblas() is None:
        return f"without OpenBLAS matrix products are 10 times slower here; to get it: {how_to_install()}"
    return None


def _lacks_blas() -> bool:
    return sys.platform == "linux" and backend() == "cpu" and "blas" not in os.environ.get("LD_PRELOAD", "")


def _restart(library: Path, preload: str) -> NoReturn:
    environ = os.environ | {_RESTARTED: preload} | _variables(library, preload)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)  # noqa: S606  this very program


def _variables(library: Path, preload: str) -> dict[str, str]:
    return {
        "LD_PRELOAD": f"{library}:{preload}".rstrip(":"),
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", str(usable_cores())),
        "OPENBLAS_THREAD_TIMEOUT": os.environ.get("OPENBLAS_THREAD_TIMEOUT", SPIN),
    }


def _forget_preload() -> None:
    preload = os.environ.pop(_RESTARTED)
    if preload:
        os.environ["LD_PRELOAD"] = preload
    else:
        os.environ.pop("LD_PRELOAD", None)


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
    if sys.platform == "linux" and backend() == "cpu" and (found := openblas()) is not None:
        variables = _variables(found, os.environ.get("LD_PRELOAD", ""))
        sys.stdout.write(" ".join(f"{name}={value}" for name, value in variables.items()))
