"""Objects have the properties that their schema names, and no others, where it says nothing of others.

JSON Schema leaves objects open; models fill what is open with inventions. An object without ``properties`` stays open.
Names are united over everything that applies to the same object (``allOf``, ``$ref`` beside other keywords, what
surrounds ``anyOf`` and ``oneOf``), since closing each part for itself could not be fulfilled.
"""

from msgspec import Struct

from app.generation.schema.keywords import AnySchema, Schema, rebuilt
from app.generation.schema.references import target

BRANCHES = ("anyOf", "oneOf")
CONDITIONAL = ("then", "else")
SAID = ("additionalProperties", "unevaluatedProperties")
BESIDE = frozenset({"$ref", "properties", "patternProperties", "required", "allOf", "anyOf", "oneOf", *SAID})
"""Keywords beside which a ``$ref`` is part of an object, not all of it."""
WRITTEN_OUT = 5000
"""Schemas that are written out in place of references at most; further references stay, and what they mean open."""

CHAIN = 12
"""References that lead to references, one inside the other."""


class Names(Struct, frozen=True):
    """What is known of an object's properties.

    ``declared`` says that some are named by ``properties``, ``said`` that the schema itself says what else there may
    be.
    """

    names: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()
    declared: bool = False
    said: bool = False

    def __or__(self, other: "Names") -> "Names":
        return Names(
            self.names | other.names,
            self.patterns | other.patterns,
            self.declared or other.declared,
            self.said or other.said,
        )


NOTHING = Names()


def closed(root: AnySchema) -> AnySchema:
    """``root``, checked and with local references, closed. Not pure JSON Schema's meaning, but ours."""
    return _Closer(root).closed(root, NOTHING)


class _Closer:
    def __init__(self, root: AnySchema) -> None:
        self._root = root
        self._left = WRITTEN_OUT
        self._under_way: list[str] = []

    def closed(self, schema: AnySchema, outer: Names) -> AnySchema:
        """``schema`` where it stands for itself; ``outer`` is what surrounds it as a branch."""
        if schema is True and outer.declared:
            schema = {}
        if not isinstance(schema, dict):
            return schema
        reference = schema.get("$ref")
        if isinstance(reference, str):
            if not (outer.declared or outer.said) and BESIDE & schema.keys() == {"$ref"}:
                return rebuilt(schema, self._nested)
            opened = self._target(reference)
            if opened is None:
                return rebuilt(schema, self._nested)
            self._under_way.append(reference)
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            made = self._object({**rest, "allOf": [*rest.get("allOf", ()), opened]}, outer)
            self._under_way.pop()
            return made
        return self._object(schema, outer)

    def _object(self, schema: Schema, outer: Names) -> Schema:
        self._left -= 1 if self._under_way else 0
        own = outer | self._names(schema, branches=False)
        made = rebuilt(schema, self._nested)
        if made.get("unevaluatedProperties") is False and "additionalProperties" not in made:
            del made["unevaluatedProperties"]
        if "allOf" in schema:
            made["allOf"] = [self._opened(branch) for branch in schema["allOf"]]
        branched = False
        for key, other in (BRANCHES, BRANCHES[::-1]):
            if key in schema:
                beside = self._union(schema.get(other, ()))
                made[key] = [self.closed(branch, own | beside) for branch in schema[key]]
                branched = True
        if branched or own.said or not own.declared or not _may_be_object(schema):
            return made
        properties = made.get("properties", {})
        made["properties"] = properties | dict.fromkeys(sorted(own.names - properties.keys()), True)
        patterns = made.get("patternProperties", {})
        if own.patterns:
            made["patternProperties"] = patterns | dict.fromkeys(sorted(own.patterns - patterns.keys()), True)
        return made | {"additionalProperties": False}

    def _nested(self, key: str, schema: AnySchema) -> AnySchema:
        """A schema of another value than the one around it; what is only asked, or applies in place, is left alone."""
        if key in {"allOf", "anyOf", "oneOf", "if", "then", "else", "not", "dependentSchemas", "contains"}:
            return schema
        return self.closed(schema, NOTHING)

    def _opened(self, schema: AnySchema) -> AnySchema:
        """A part of an object: what is inside its properties is closed, itself it is not."""
        if not isinstance(schema, dict):
            return schema
        self._left -= 1
        made = rebuilt(schema, self._nested)
        for key in ("allOf", *BRANCHES):
            if key in schema:
                made[key] = [self._opened(branch) for branch in schema[key]]
        reference = schema.get("$ref")
        opened = self._target(reference) if isinstance(reference, str) else None
        if opened is None or reference is None:
            return made
        self._under_way.append(reference)
        inlined = self._opened(opened)
        self._under_way.pop()
        del made["$ref"]
        return inlined if not made else {**made, "allOf": [*made.get("allOf", ()), inlined]}

    def _target(self, reference: str) -> AnySchema | None:
        """What is written out in a reference's place; None where it leads nowhere, or round in a circle."""
        if reference in self._under_way or len(self._under_way) >= CHAIN or self._left <= 0:
            return None
        return target(reference, self._root)

    def _union(self, branches: list[AnySchema]) -> Names:
        found = NOTHING
        for branch in branches:
            found |= self._names(branch, branches=True)
        return found

    def _names(self, schema: AnySchema, *, branches: bool, seen: set[str] | None = None) -> Names:
        """What all that applies to the object names; ``branches`` too, if asked. ``seen`` are references followed."""
        seen = set() if seen is None else seen
        if not isinstance(schema, dict):
            return NOTHING
        properties = schema.get("properties", {})
        said = schema.get("additionalProperties") is not None or schema.get("unevaluatedProperties", False) is not False
        found = Names(
            frozenset(properties) | frozenset(schema.get("required", ())),
            frozenset(schema.get("patternProperties", ())),
            declared=bool(properties),
            said=said,
        )
        parts = [*schema.get("allOf", ()), *(schema[key] for key in CONDITIONAL if key in schema)]
        parts += [*schema.get("dependentSchemas", {}).values()]
        parts += [branch for key in BRANCHES if branches for branch in schema.get(key, ())]
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            seen.add(reference)
            parts.append(target(reference, self._root) or {})
        for part in parts:
            found |= self._names(part, branches=True, seen=seen)
        return found


def _may_be_object(schema: Schema) -> bool:
    named = schema.get("type", "object")
    return "object" in (named if isinstance(named, list) else [named])
