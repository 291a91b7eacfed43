"""What a model's process is started with: its program, its environment without secrets, the folders that it may use."""

import os
import re
import sys
from pathlib import Path

from app.engine import native

KEPT = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|XDG_CACHE_HOME|LD_LIBRARY_PATH|LD_PRELOAD|VIRTUAL_ENV|"
    r"(PYTHON|MLX|OPENBLAS|OMP|VECLIB|METAL|MTL|CUDA|NVIDIA|NCCL|DYLD|COVERAGE)\w*"
)
"""Variables that a process may see; everything else stays with the service."""
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|API_?KEY", re.IGNORECASE)
"""Never passed on, whatever it begins with."""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def environment() -> dict[str, str]:
    """Of a process that computes: what libraries need, OpenBLAS first on a Linux CPU, and nothing that is secret.

    It finds this very package, wherever that is.
    """
    kept = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name) and not SECRET.search(name)}
    ours = {"PYTHONPATH": f"{Path(__file__).parents[3]}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")}
    return kept | ours | OFFLINE | native.variables()


def command(setup: str) -> list[str]:
    """The program; ``setup`` is its one argument."""
    return [sys.executable, "-P", "-m", "app.engine.host", setup]


def places(path: Path) -> set[Path]:
    """The folders that reading the directory ``path`` leads to, links followed."""
    real = path.resolve()
    return {real} | {file.resolve().parent for file in real.glob("*") if file.is_symlink()}
