"""Packages from registries, fetched once outside of the tree; tests skip where that cannot be done."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

MINUTES = 5


def cache(registry: str) -> Path:
    """Where what comes from a registry is kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "switchyard-tests" / registry


def fetched(what: str, home: Path, inside: str, command: Callable[[Path], list[str]]) -> Path:
    """What lies at ``inside`` of ``home``, once ``command`` has made it in the directory that it is given.

    Processes that fetch the same do not see each other's halves: each makes its own beside ``home``, and the first
    that is done gives it its name.
    """
    found = home / inside
    if found.exists():
        return found
    part = home.with_name(f"{home.name}.{os.getpid()}")
    part.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(command(part), capture_output=True, text=True, timeout=60 * MINUTES)
        if done.returncode:
            pytest.skip(f"{what} cannot be had: {done.stderr.strip()[-200:]}")
        if not found.exists():
            shutil.rmtree(home, ignore_errors=True)  # of a run that was cut off
            part.rename(home)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{what} does not come within {MINUTES} minutes")
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return found
