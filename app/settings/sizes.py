"""Sizes in bytes, as people write them: ``12GB``, ``512MiB``, ``1.5 GiB`` or plain bytes."""

import re

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes in ``text``: ``GB`` counts in thousands, ``GiB`` in 1024s. Raises ValueError for anything else."""
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise ValueError(text)
    number, unit = match[1], _UNITS[match[2]]
    return int(number) * unit if "." not in number else int(float(number) * unit)


def format_size(size: int) -> str:
    """``size`` in the largest binary unit that keeps it exact: ``1GiB``, ``10MiB``, ``1000``."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)
