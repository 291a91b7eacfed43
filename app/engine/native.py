"""The native side of a start: which MLX backend is installed, and OpenBLAS under it on a Linux CPU.

MLX's Linux CPU wheel carries the reference BLAS. OpenBLAS, loaded before it, takes over its symbols and makes float32
matrix products 10 to 60 times faster. Before OpenBLAS stands ``gemv.c``, where there is a compiler for it: a step of
one row of SmolLM2 takes 0.76 of the time. Libraries can only be put first before a process starts. mx.compile needs no
care here: MLX looks for g++ itself and computes uncompiled without it.

``python -m app.engine.native`` prints the variables to set, for programs started with them: ``env $(...) pytest``.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from zlib import crc32

from app.engine.compiler import compile_library
from app.engine.paths import native_home

_NAMES = ("libopenblasp.so.0", "libopenblas.so.0", "libopenblasp.so", "libopenblas.so")

SPIN = "17"
"""OpenBLAS's idle threads spin for ``2**SPIN`` cycles before they sleep, some 50 us: the pauses between most of a
model's matrix products, not those around a step, in which other threads and processes need the cores. Its own default
outlasts both.
"""

GEMV = Path(__file__).with_name("gemv.c")

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


def prepare() -> None:
    """Compile ``gemv.c`` for :func:`variables` to find, if there is a compiler: once, a tenth of a second."""
    if not _lacks_blas() or openblas() is None or (library := _gemv_library()).exists():
        return
    with suppress(OSError, subprocess.SubprocessError):  # MLX's own way it is, then
        library.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder, library.name)
            compile_library(GEMV, made, "-O2", "-ldl")
            made.replace(library)


def gemv() -> Path | None:
    """The library that was made of ``gemv.c``, if it can be named among those that come first."""
    library = _gemv_library()
    return library if library.exists() and not set(str(library)) & set(": ") else None


def _gemv_library() -> Path:
    """Where it is kept, for this version of the source and this kind of machine."""
    return native_home() / f"gemv-{crc32(GEMV.read_bytes()):08x}-{platform.machine()}.so"


def variables() -> dict[str, str]:
    """What the environment of a process that computes needs beside what this one has: on a Linux CPU what is first."""
    if not _lacks_blas() or (library := openblas()) is None:
        return {}
    first = [*filter(None, [gemv()]), library]
    return {
        "LD_PRELOAD": ":".join([*map(str, first), os.environ.get("LD_PRELOAD", "")]).rstrip(":"),
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
    prepare()
    sys.stdout.write(" ".join(f"{name}={value}" for name, value in variables().items()))
