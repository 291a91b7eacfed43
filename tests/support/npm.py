"""Programs from npm, installed once outside of the tree; a test that needs one is skipped where that cannot be done."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def npm_package(name: str, version: str) -> Path:
    """The directory of the package; no script of it or of what it needs is run while it is installed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "switchyard-tests" / "npm"
    home = cache / f"{name.replace('/', '+')}@{version}"
    found = home / "node_modules" / name
    if (found / "package.json").exists():
        return found
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip(f"{name} needs node and npm")
    home.mkdir(parents=True, exist_ok=True)
    command = [
        npm,
        "install",
        "--prefix",
        str(home),
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        f"{name}@{version}",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm does not install {name}@{version} within five minutes")
    if done.returncode:
        shutil.rmtree(home, ignore_errors=True)
        pytest.skip(f"npm cannot install {name}@{version}: {done.stderr.strip()[-200:]}")
    return found
