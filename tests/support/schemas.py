"""Random JSON schemas of every kind that answers can be held to."""

import random
import string
from typing import Any

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
