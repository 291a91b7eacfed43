"""Values that a model wrote without saying of what type they are."""

import ast
import json
from typing import Any

from app.generation.tools.rules import spelt
from app.generation.tools.toolbox import type_of


def converted(raw: str, kinds: set[str]) -> str:
    """``raw`` as JSON text of one of the types ``kinds`` (none: of any type); a text where nothing else fits.

    Python's words for values are understood too, because some models write them.
    """
    text = raw.strip()
    value = _read(text)
    if value is not None and (not kinds or _fits(value[0], kinds)):
        return spelt(value[0])
    return spelt(raw if "string" in kinds else text)


def _read(text: str) -> tuple[Any] | None:
    """What ``text`` means as JSON or as a Python literal."""
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
            spelt(value)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        return (value,)
    return None


def _fits(value: Any, kinds: set[str]) -> bool:
    kind = type_of(value)
    return (kind in kinds and kind != "string") or (kind == "integer" and "number" in kinds) or kinds == {"string"}
