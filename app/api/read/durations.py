"""How long a model stays after a request, in Ollama's spelling: seconds as a number, or ``"1h30m"``."""

import re

from app.errors import InvalidRequest

UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
NUMBER = re.compile(r"[+-]?[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ns|us|µs|ms|s|m|h)", re.ASCII)
DURATION = re.compile(rf"([+-]?)((?:{PART.pattern}){{1,7}})", re.ASCII)


def seconds(value: str | float, *, param: str) -> float:
    """Seconds; negative means for ever. Raises :class:`InvalidRequest` naming ``param``."""
    if not isinstance(value, str):
        return float(value)
    if NUMBER.fullmatch(value):
        return float(value)
    if match := DURATION.fullmatch(value):
        total = sum(float(number) * UNITS[unit] for number, unit in PART.findall(match[2]))
        return -total if match[1] == "-" else total
    raise InvalidRequest(
        f"{param} must be a number of seconds or a duration such as '5m' or '1h30m'; -1 keeps the model loaded.",
        param=param,
    )
