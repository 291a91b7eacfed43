"""How a model's authors draw its answers: what its ``generation_config.json`` says, as far as it can be done here."""

import math
from pathlib import Path
from typing import Any

import msgspec

from app.schemas.sampling import SamplingDefaults

FILE = "generation_config.json"
RANGES = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0),
}
LARGEST = 1 << 20
"""Bytes of the file."""


def sampling_defaults(directory: Path) -> SamplingDefaults:
    """Nothing where there is no such file, or none that can be read; values that make no sense are left out.

    ``do_sample: false`` is greedy.
    """
    path = directory / FILE
    try:
        if path.stat().st_size > LARGEST:
            return SamplingDefaults()
        own = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return SamplingDefaults()
    found = {name: float(own[name]) for name, (low, high) in RANGES.items() if _within(own.get(name), low, high)}
    top_k = own.get("top_k")
    if own.get("do_sample") is False:
        found["temperature"] = 0.0
    return SamplingDefaults(**found, top_k=top_k if type(top_k) is int and top_k >= 0 else None)


def _within(value: Any, low: float, high: float) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and low <= value <= high
