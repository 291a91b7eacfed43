"""Whether a document is a JSON schema, and its plainest spelling."""

import math
from typing import Any

from app.generation.schema.keywords import NAMED, ONE, SEVERAL, AnySchema, Schema

TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
DEPTH = 64
"""Schemas inside each other."""
VALUES = frozenset({"const", "default"})
"""Keywords for which null is a value."""
COUNTS = frozenset(
    {
        "maxContains", "maxItems", "maxLength", "maxProperties", "minContains", "minItems", "minLength",
        "minProperties",
    }
)  # fmt: skip
NUMBERS = frozenset({"maximum", "minimum", "multipleOf"})
EXCLUSIVE = {"exclusiveMaximum": "maximum", "exclusiveMinimum": "minimum"}
TEXTS = frozenset({"$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$ref", "$schema", "format", "pattern"})
FLAGS = frozenset({"$recursiveAnchor", "uniqueItems"})

Path = tuple[str, ...]


class SchemaFault(Exception):
    """A document is not a JSON schema: at ``path`` something stands that may not."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{'.'.join(path) or 'the schema'} {reason}")
        self.path = path


def checked(document: Any) -> AnySchema:
    """The schema without its nulls (a keyword that is null is not there), older drafts' keywords in today's form.

    What is no constraint (titles, examples) is left alone, and so are keywords that JSON Schema does not know. Raises
    :class:`SchemaFault`.
    """
    return _checked(document, (), 0)


def _checked(document: Any, path: Path, depth: int) -> AnySchema:
    if isinstance(document, bool):
        return document
    if not isinstance(document, dict):
        raise SchemaFault(path, "must be a schema: an object, true or false")
    if depth > DEPTH:
        raise SchemaFault(path[:4], "is nested too deeply")
    made: Schema = {}
    for key, value in document.items():
        if (value is None and key not in VALUES) or key == "x-guidance":
            continue
        made[key] = _keyword(key, value, (*path, key), depth + 1)
    return _modern(made)


def _keyword(key: str, value: Any, path: Path, depth: int) -> Any:
    if key == "items" and isinstance(value, list):
        return [_checked(inner, (*path, str(at)), depth) for at, inner in enumerate(value)]
    if key in ONE:
        return _checked(value, path, depth)
    if key in SEVERAL:
        _demand(isinstance(value, list) and value != [], path, "must be a list of schemas, one at least")
        return [_checked(inner, (*path, str(at)), depth) for at, inner in enumerate(value)]
    if key in NAMED:
        _demand(isinstance(value, dict), path, "must be an object of schemas")
        return {name: _checked({} if inner is None else inner, (*path, name), depth) for name, inner in value.items()}
    if key == "dependencies":
        _demand(isinstance(value, dict), path, "must be an object")
        return {
            name: _names(inner, (*path, name)) if isinstance(inner, list) else _checked(inner, (*path, name), depth)
            for name, inner in value.items()
            if inner is not None
        }
    return _plain(key, value, path)


def _plain(key: str, value: Any, path: Path) -> Any:
    """A keyword that holds no schema."""
    if key == "type":
        return _type(value, path)
    if key == "required":
        return _names(value, path)
    if key == "dependentRequired":
        _demand(isinstance(value, dict), path, "must be an object of lists of names")
        return {name: _names(inner, (*path, name)) for name, inner in value.items()}
    if key == "enum":
        _demand(isinstance(value, list), path, "must be a list")
    elif key in COUNTS:
        whole = _is_number(value) and value >= 0 and float(value).is_integer()
        _demand(whole, path, "must be a whole number, 0 or more")
        return int(value)
    elif key in NUMBERS or (key in EXCLUSIVE and not isinstance(value, bool)):
        _demand(_is_number(value), path, "must be a number")
        _demand(key != "multipleOf" or value > 0, path, "must be more than 0")
    elif key in TEXTS:
        _demand(isinstance(value, str), path, "must be a string")
    elif key in FLAGS:
        _demand(isinstance(value, bool), path, "must be true or false")
    return value


def _type(value: Any, path: Path) -> str | list[str]:
    named = value if isinstance(value, list) else [value]
    known = named != [] and all(isinstance(it, str) and it in TYPES for it in named)
    _demand(known, path, f"must be one of {', '.join(sorted(TYPES))}, or a list of them")
    return list(dict.fromkeys(named)) if isinstance(value, list) else str(value)


def _names(value: Any, path: Path) -> list[str]:
    _demand(isinstance(value, list) and all(isinstance(it, str) for it in value), path, "must be a list of names")
    return list(dict.fromkeys(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _demand(holds: bool, path: Path, reason: str) -> None:
    if not holds:
        raise SchemaFault(path, reason)


def _modern(schema: Schema) -> Schema:
    """Draft 4's exclusive bounds, and the tuples and dependencies of drafts up to 7."""
    for key, bound in EXCLUSIVE.items():
        exclusive = schema.get(key)
        if isinstance(exclusive, bool):
            del schema[key]
            if exclusive and bound in schema:
                schema[key] = schema.pop(bound)
    if isinstance(schema.get("items"), list):
        first = schema.pop("items")
        rest = schema.pop("additionalItems", None)
        schema |= ({"prefixItems": first} if first else {}) | ({} if rest is None else {"items": rest})
    schema.pop("additionalItems", None)
    dependencies = schema.pop("dependencies", {})
    for name, needed in dependencies.items():
        key = "dependentRequired" if isinstance(needed, list) else "dependentSchemas"
        schema[key] = schema.get(key, {}) | {name: needed}
    return schema
