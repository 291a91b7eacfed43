"""Random JSON schemas of every kind that answers can be held to."""

import random
import string
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

Schema = dict[str, Any]
FORMATS = ("date", "time", "date-time", "email", "uuid", "ipv4", "hostname", "duration")
PATTERNS = ("^[a-z]{2,5}$", "^\\d{3}-\\d{4}$", "^(yes|no|maybe)$", "^[A-Z][a-z]{0,6}( [A-Z][a-z]{0,6}){0,2}$")


def random_schema(seed: int) -> Schema:
    """The same seed gives the same schema; values are small, so that a random model finds an end."""
    made = random.Random(seed)  # noqa: S311  not for secrets
    if seed % 10 == 9:
        return _recursive(made)
    schema = _object(made, 3)
    if seed % 10 == 8:
        schema["$defs"] = {"part": _object(made, 1)}
        schema["properties"]["part"] = {"$ref": "#/$defs/part"}
        schema["required"].append("part")
    return schema


def _recursive(made: random.Random) -> Schema:
    node: Schema = {
        "type": "object",
        "properties": {
            "value": _scalar(made),
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
        },
        "required": ["value"],
        "additionalProperties": False,
    }
    return {"$defs": {"node": node}, "$ref": "#/$defs/node"}


def _any(made: random.Random, depth: int) -> Schema:
    if depth <= 0 or made.random() < 0.5:
        return _scalar(made)
    return made.choice([_object, _array, _union])(made, depth - 1)


def _object(made: random.Random, depth: int) -> Schema:
    names = ["".join(made.choices(string.ascii_lowercase, k=made.randint(1, 6))) for _ in range(made.randint(1, 4))]
    properties = {name: _any(made, depth - 1) for name in names}
    required = [name for name in properties if made.random() < 0.7]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _array(made: random.Random, depth: int) -> Schema:
    least = made.randint(0, 2)
    return {"type": "array", "items": _any(made, depth - 1), "minItems": least, "maxItems": least + made.randint(0, 2)}


def _union(made: random.Random, depth: int) -> Schema:
    if made.random() < 0.5:
        return {"anyOf": [_any(made, depth - 1), {"type": "null"}]}
    return {"oneOf": [{"type": "string", "maxLength": 4}, {"type": "integer", "minimum": 0, "maximum": 99}]}


def _scalar(made: random.Random) -> Schema:
    low = made.randint(-50, 50)
    return made.choice(
        [
            {"type": "integer", "minimum": low, "maximum": low + made.randint(1, 500)},
            {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 1000},
            {"type": "number", "exclusiveMinimum": 0, "maximum": 10},
            {"type": "boolean"},
            {"type": "null"},
            {"type": ["integer", "null"], "minimum": -9, "maximum": 9},
            {"type": "string", "minLength": 1, "maxLength": made.randint(1, 12)},
            {"type": "string", "pattern": made.choice(PATTERNS)},
            {"type": "string", "format": made.choice(FORMATS)},
            {"enum": [made.choice(["red", "grün", 'a"b']), 7, None, {"deep": [True]}]},
            {"const": made.choice(["x", 0, 1.5, ["a", {}]])},
        ]
    )


NAMES = st.sampled_from(["a", "b", "count", "user_name", "filter[x]", "$top", "größe", "with space", "x-y.z"])
SCALARS = st.sampled_from(
    [
        {"type": "integer", "minimum": 0, "maximum": 99},
        {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 9},
        {"type": "number", "minimum": -1, "maximum": 1},
        {"type": "boolean"},
        {"type": "null"},
        {"type": "string", "maxLength": 3},
        {"type": "string", "pattern": "^[a-z]{1,3}$"},
        {"type": "string", "pattern": "^a$|^bc$"},
        {"type": "string", "pattern": "\\d", "maxLength": 2},
        {"type": ["string", "null"], "maxLength": 2},
        {"enum": ["red", 'a"b', 7, None]},
        {"enum": [None]},
        {"const": None},
        {"const": "</parameter>"},
        {"type": "string", "enum": ["x", "y z"]},
        {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "integer", "minimum": 1, "maximum": 5}]},
        {"oneOf": [{"const": "on"}, {"type": "null"}]},
        {"type": "string", "format": "date"},
    ]
)
SWITCHED_OFF = st.dictionaries(
    st.sampled_from(["title", "items", "required", "properties", "minimum", "enum", "anyOf", "pattern", "maxLength"]),
    st.none(),
    max_size=2,
)
"""Keywords that are null, which means that they are not there."""
UNENFORCEABLE = st.sampled_from(
    [
        {"type": "string", "pattern": "^(?=a)b$"},
        {"type": "string", "pattern": "("},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.com/schema"},
        {"enum": []},
        {"type": "array", "minItems": 3, "maxItems": 1},
    ]
)
"""Valid, but no grammar says it, or no value fulfils it."""


@st.composite
def parameters(draw: st.DrawFn, *, enforceable: bool = True) -> Schema:
    """The parameters of a function as MCP servers describe them; valid JSON Schema but for keywords that are null."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    properties = {name: draw(_values(2, names[0])) for name in names}
    properties[names[0]] = draw(SCALARS)
    if not enforceable:
        properties["hard"] = draw(UNENFORCEABLE)
    required = draw(st.lists(st.sampled_from([*names, "undeclared"]), unique=True))
    schema: Schema = {"type": "object", "properties": properties, "required": required}
    if not enforceable:
        required.append("hard")
    more: Schema = draw(
        st.sampled_from(
            [
                {},
                {},
                {"required": None},
                {"additionalProperties": True},
                {"additionalProperties": {"type": "integer", "minimum": 0, "maximum": 9}},
                {"patternProperties": {"^(a|b)$": True}},
                {"patternProperties": {"^x_[a-z]{1,3}$": {"type": "boolean"}}},
                {"allOf": [{"properties": {"also": {"type": "boolean"}}, "required": ["also"]}]},
                {"allOf": [{"$ref": "#/$defs/base"}]},
                {"anyOf": [{"required": [names[0]]}, {"properties": {"other": {"type": "null"}}}]},
                {"minProperties": None, "not": {"type": "string"}},
            ]
        )
    )
    base = {"type": "object", "properties": {"id": {"type": "integer", "minimum": 0, "maximum": 9}}}
    node = {
        "type": "object",
        "properties": {"v": draw(SCALARS), "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
        "required": ["v"],
    }
    if not enforceable:
        more = {key: value for key, value in more.items() if key != "required"}
    return schema | more | {"$defs": {"base": base, "node": node, "odd<name>/%": draw(SCALARS)}} | {"title": None}


def _values(depth: int, sibling: str) -> st.SearchStrategy[Any]:
    pointer = quote(sibling.replace("~", "~0").replace("/", "~1"), safe="")
    flat = st.one_of(
        SCALARS,
        SCALARS,
        st.just(True),
        st.just({"$ref": f"#/properties/{pointer}"}),
        st.just({"$ref": "#/$defs/node"}),
        st.just({"$ref": "#/$defs/odd<name>~1%25"}),
        st.just({"type": "object"}),
    )
    if depth == 0:
        return flat
    inner = _values(depth - 1, sibling)
    lists = st.builds(
        lambda items, least, more: {"type": "array", "items": items, "minItems": least, "maxItems": least + more},
        inner,
        st.integers(0, 1),
        st.integers(0, 1),
    )
    tuples = st.builds(lambda a, b: {"type": "array", "items": [a, b], "additionalItems": False}, SCALARS, inner)
    objects = st.builds(
        lambda off, name, value: off | {"type": "object", "properties": {"k": {"type": "null"}, name: value}},
        SWITCHED_OFF,
        NAMES,
        inner,
    )
    united = st.builds(
        lambda a, b: {
            "allOf": [{"type": "object", "properties": {"l": a}}, {"properties": {"r": b}, "required": ["r"]}]
        },
        SCALARS,
        SCALARS,
    )
    either = st.builds(lambda a, b: {"anyOf": [a, b]}, objects, SCALARS)
    return st.one_of(flat, lists, tuples, objects, united, either)
