"""Programs from npm; a test that needs one is skipped where it cannot be had."""

import shutil
from pathlib import Path

import pytest

from tests.support.fetched import cache, fetched


def npm_package(name: str, version: str) -> Path:
    """The directory of the package; no script of it or of what it needs is run while it is installed."""
    pinned = f"{name}@{version}"

    def install(part: Path) -> list[str]:
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            pytest.skip(f"{name} needs node and npm")
        return [npm, "install", "--prefix", str(part), "--ignore-scripts", "--no-audit", "--no-fund", pinned]

    home = cache("npm") / pinned.replace("/", "+")
    return fetched(f"{pinned} of npm", home, f"node_modules/{name}", install)
