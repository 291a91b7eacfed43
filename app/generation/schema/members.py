"""A schema taken apart, for call formats that write values and objects in a way of their own."""

from typing import Any

from msgspec import Struct

from app.generation.schema.keywords import AnySchema, Schema
from app.generation.schema.references import target

NAMES = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
ANNOTATIONS = frozenset(
    {
        "$comment", "$defs", "default", "definitions", "deprecated", "description", "example", "examples", "readOnly",
        "title", "writeOnly",
    }
)  # fmt: skip
DEPTH = 16


class Members(Struct, frozen=True):
    """An object's properties in the schema's order, and those of them that may not be left out.

    ``others`` are names of a pattern (None: any other name) with the schemas of their values.
    """

    properties: dict[str, AnySchema]
    required: frozenset[str]
    others: tuple[tuple[str | None, AnySchema], ...]


def members(schema: AnySchema, root: AnySchema) -> Members:
    """What ``schema`` (a part of ``root``) says of objects, with everything that applies to the same object united.

    Of ``anyOf`` and ``oneOf`` the properties of all branches are told, none of them required for that.
    """
    properties: dict[str, list[AnySchema]] = {}
    required: set[str] = set()
    others: dict[str | None, list[AnySchema]] = {}
    for part, sure in _parts(schema, root):
        for name, inner in part.get("properties", {}).items():
            properties.setdefault(name, []).append(inner)
        if sure:
            required |= set(part.get("required", ()))
        for pattern, inner in part.get("patternProperties", {}).items():
            others.setdefault(pattern, []).append(inner)
        if "additionalProperties" in part:
            others.setdefault(None, []).append(part["additionalProperties"])
    if not properties and None not in others:
        others[None] = [True]
    for name in sorted(required - properties.keys()):
        properties[name] = [True]
    joined = {name: _joined(parts) for name, parts in properties.items()}
    return Members(
        {name: inner for name, inner in joined.items() if inner is not False or name in required},
        frozenset(required),
        tuple((pattern, it) for pattern, parts in others.items() if (it := _joined(parts)) is not False),
    )


def plain(schema: AnySchema, root: AnySchema) -> Schema:
    """What holds for values of ``schema`` whatever branch they take: references and ``allOf`` written out.

    Where two parts say different things the stricter one is kept if one is, else the first; all patterns are listed
    under ``patterns``.
    """
    made: Schema = {}
    if schema is False:
        return {"enum": []}
    patterns: list[str] = []
    for part, _ in _parts(schema, root, branches=False):
        for key, value in part.items():
            made[key] = value if key not in made else _stricter(key, made[key], value)
        if part.get("pattern") is not None and part["pattern"] not in patterns:
            patterns.append(part["pattern"])
    for key in ("$ref", "allOf"):
        made.pop(key, None)
    return made | ({"patterns": patterns} if patterns else {})


def joined(*schemas: AnySchema) -> AnySchema:
    """All of ``schemas`` at once."""
    return _joined(list(schemas))


def types(schema: AnySchema, root: AnySchema) -> set[str]:
    """The JSON types that values of ``schema`` may have; empty if it does not say."""
    found = _Typist(root).types(schema, DEPTH)
    return set() if found is None else found


def says_nothing(schema: AnySchema) -> bool:
    """Whether any value fulfils it."""
    return schema is True or (isinstance(schema, dict) and not schema.keys() - ANNOTATIONS)


def type_of(value: Any) -> str:
    """JSON's name for the type of a decoded value."""
    return NAMES.get(type(value), "object")


class _Typist:
    """Finds types; what refers round in circles or is very large is of any."""

    def __init__(self, root: AnySchema) -> None:
        self._root = root
        self._left = 500

    def types(self, schema: AnySchema, depth: int) -> set[str] | None:
        """None if any."""
        self._left -= 1
        if depth <= 0 or self._left <= 0 or schema is True:
            return None
        if not isinstance(schema, dict):
            return set()
        possible: list[set[str] | None] = []
        named = schema.get("type")
        if named is not None:
            possible.append(set(named) if isinstance(named, list) else {named})
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if values is not None:
            possible.append({type_of(value) for value in values})
        for key in ("anyOf", "oneOf"):
            branches = [self.types(branch, depth - 1) for branch in schema.get(key, ())]
            known = [it for it in branches if it is not None]
            if branches and len(known) == len(branches):
                possible.append(set().union(*known))
        possible += [self.types(branch, depth - 1) for branch in schema.get("allOf", ())]
        if "$ref" in schema:
            possible.append(self.types(_target(schema["$ref"], self._root), depth - 1))
        found: set[str] | None = None
        for kinds in possible:
            if kinds is not None:
                found = kinds if found is None else _both(found, kinds)
        return found


def _both(left: set[str], right: set[str]) -> set[str]:
    """Types of both; every integer is a number."""
    wide = [kinds | ({"integer"} if "number" in kinds else set()) for kinds in (left, right)]
    shared = wide[0] & wide[1]
    return shared - {"integer"} if "number" in shared else shared


def _parts(schema: AnySchema, root: AnySchema, *, branches: bool = True) -> list[tuple[Schema, bool]]:
    """Everything that applies to a value of ``schema``; of each part, whether it does so for sure."""
    found: list[tuple[Schema, bool]] = []
    seen: set[str] = set()

    def visit(part: AnySchema, depth: int, *, sure: bool) -> None:
        if not isinstance(part, dict) or depth > DEPTH:
            return
        found.append((part, sure))
        reference = part.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            seen.add(reference)
            visit(_target(reference, root), depth + 1, sure=sure)
        for inner in part.get("allOf", ()):
            visit(inner, depth + 1, sure=sure)
        for key in ("anyOf", "oneOf") if branches else ():
            for inner in part.get(key, ()):
                visit(inner, depth + 1, sure=sure and len(part[key]) == 1)

    visit(schema, 0, sure=True)
    return found


def _target(reference: str, root: AnySchema) -> AnySchema:
    found = target(reference, root)
    return True if found is None else found


def _joined(schemas: list[AnySchema]) -> AnySchema:
    """All of ``schemas`` at once."""
    if False in schemas:
        return False
    schemas = [it for i, it in enumerate(schemas) if it is not True and it != {} and it not in schemas[:i]]
    return {} if not schemas else schemas[0] if len(schemas) == 1 else {"allOf": schemas}


def _stricter(key: str, mine: Any, other: Any) -> Any:
    if key == "enum":
        return [value for value in mine if value in other]
    if key.startswith("min") or key == "exclusiveMinimum":
        return max(mine, other)
    if key.startswith("max") or key == "exclusiveMaximum":
        return min(mine, other)
    return mine
