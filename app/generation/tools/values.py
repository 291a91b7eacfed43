"""Values that a model wrote without saying of what type they are."""

import ast
import json
import re
from typing import Any

from app.generation.schema.members import type_of
from app.generation.tools.rules import spelt
from app.generation.tools.source import Source, Steps

ESCAPE = re.compile(r"\\.", re.DOTALL)


def value_text(source: Source, end: str, kinds: set[str]) -> Steps[str]:
    """The text of a value up to the mark ``end``, both read; one inside a JSON string is no mark.

    A text may begin like JSON and be none, so only values that are no text are looked at so closely.
    """
    raw, _ = yield from source.until(end)
    while kinds and "string" not in kinds and raw.lstrip()[:1] in ("{", "[") and _in_string(raw):
        more, _ = yield from source.until(end)
        raw += end + more
    return raw


def converted(raw: str, kinds: set[str]) -> str:
    """``raw`` as JSON text of one of the types ``kinds`` (none: of any type); a text where nothing else fits.

    Python's words for values are understood too, because some models write them.
    """
    text = raw.strip()
    value = _read(text)
    if value is not None and (not kinds or _fits(value[0], kinds)):
        return spelt(value[0])
    return spelt(raw if "string" in kinds else text)


def _in_string(text: str) -> bool:
    return ESCAPE.sub("", text).count('"') % 2 == 1


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
