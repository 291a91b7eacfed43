"""What is wrong with a grammar, said so that its author finds the place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from app.engine.grammar import Grammar
from app.errors import InvalidRequest

KEYWORDS = (
    (re.compile(r'Unimplemented keys: \["(?P<keyword>[^"]+)"'), None),
    (re.compile(r"Unknown format: (?P<value>.*)"), "format"),
    (re.compile(r"Invalid type: (?P<value>.*)"), "type"),
    (re.compile(r"Pointer '(?P<value>[^']*)'"), "$ref"),
    (re.compile(r"Resource '(?P<value>[^']*)'"), "$ref"),
    (re.compile(r"regex parse error|look-around|look-ahead"), "pattern"),
    (re.compile(r"oneOf"), "oneOf"),
    (re.compile(r"multipleOf"), "multipleOf"),
    (re.compile(r"minimum|maximum"), "minimum"),
)
"""llguidance's messages, and the keyword of JSON Schema that each speaks of."""

NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose value is a mapping from names of the author's own to schemas."""


def refusal(grammar: Grammar, said: str) -> InvalidRequest:
    """The 400 for llguidance's message ``said``; ``param`` is the keyword at fault where it can be found."""
    reason = " ".join(line.strip() for line in said.splitlines() if line.strip() and line.strip() != "<non-verbose/>")
    if reason.startswith("NoExtension"):
        reason = "no text fulfils it"
    param = grammar.param
    if grammar.kind == "json_schema":
        keyword, value = _keyword(said)
        place = None if keyword is None else _find(json.loads(grammar.source), keyword, value)
        param = ".".join((param, *(place or ())))
        if keyword is not None and keyword not in reason:
            reason = f"{keyword}: {reason}"
    return InvalidRequest(
        f"{grammar.param} cannot be enforced: {reason[:300].rstrip('. ')}. Change or remove it.",
        param=param,
        code="grammar_not_supported",
    )


def _keyword(said: str) -> tuple[str | None, str | None]:
    for pattern, keyword in KEYWORDS:
        found = pattern.search(said)
        if found is not None:
            named = found.groupdict()
            return named.get("keyword") or keyword, named.get("value")
    return None, None


def _find(schema: Any, keyword: str, value: str | None) -> tuple[str, ...] | None:
    """The path to the first ``keyword`` (with ``value``, if that is known), depth first."""
    if isinstance(schema, dict):
        here = schema.get(keyword)
        if keyword in schema and (value is None or (isinstance(here, str) and value.lstrip("#/") in here)):
            return (keyword,)
    for path, inner in _inner(schema):
        found = _find(inner, keyword, value)
        if found is not None:
            return (*path, *found)
    return None


def _inner(schema: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The schemas right inside ``schema``, with the way to them; the names in ``NAMED`` are not keywords."""
    entries = schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
    for key, inner in entries:
        if key in NAMED and isinstance(inner, dict):
            yield from (((str(key), name), it) for name, it in inner.items())
        else:
            yield (str(key),), inner
