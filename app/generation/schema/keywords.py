"""Where in a JSON schema other schemas stand.

Source: JSON Schema 2020-12 (https://json-schema.org/draft/2020-12/json-schema-core#section-10), and the keywords of
drafts 4 to 7 that it has no longer.
"""

from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]
"""A JSON schema that is an object: an open form, so it has no struct."""
AnySchema = Schema | bool
"""``True`` allows every value, ``False`` none."""

ONE = frozenset(
    {
        "additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not",
        "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
    }
)  # fmt: skip
"""Keywords whose value is a schema."""
SEVERAL = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
"""Keywords whose value is a list of schemas."""
NAMED = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
"""Keywords whose value maps names or patterns of the author's own to schemas."""


def rebuilt(schema: Schema, change: Callable[[str, Any], Any]) -> Schema:
    """A copy in which each schema right inside is what ``change(keyword, schema)`` makes of it."""
    made: Schema = {}
    for key, value in schema.items():
        if key in ONE:
            made[key] = change(key, value)
        elif key in SEVERAL:
            made[key] = [change(key, inner) for inner in value]
        elif key in NAMED:
            made[key] = {name: change(key, inner) for name, inner in value.items()}
        else:
            made[key] = value
    return made
