"""What call formats that write parameters one by one have in common: which there are, and how they may be named."""

import re
from collections.abc import Iterable

from app.errors import InvalidRequest
from app.generation.schema.keywords import AnySchema, Schema
from app.generation.schema.members import Members, members
from app.generation.tools.expressions import searched
from app.generation.tools.rules import Rules, slashed
from app.generation.tools.toolbox import Tool

OTHER_NAME = r"[^\s<>\x22'={}:,()\[\]]{1,64}"
"""A parameter's name that the schema does not say: no format has a mark with such letters alone."""
UNWRITTEN = frozenset(
    {
        "anyOf", "contains", "dependentRequired", "dependentSchemas", "else", "if", "maxProperties", "minProperties",
        "not", "oneOf", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties", "uniqueItems",
    }
)  # fmt: skip
"""Keywords that no rule is written for where objects are not JSON; strict functions with them are refused."""


def parameters(tool: Tool, forbidden: Iterable[str]) -> Members:
    """The function's parameters.

    The format's marks around names are ``forbidden`` in them: raises :class:`app.errors.InvalidRequest` for such.
    """
    check(tool.parameters, tool)
    found = members(tool.parameters, tool.parameters)
    for name in found.properties:
        check_name(name, forbidden, tool)
    return found


def check_name(name: str, forbidden: Iterable[str], tool: Tool) -> None:
    """Raises :class:`app.errors.InvalidRequest` for a name that could not be read back."""
    if name != name.strip() or not name or any(mark in name for mark in forbidden):
        raise _unwritable(tool, f"the parameter name {name[:64]!r}")


def check(schema: Schema, tool: Tool, keywords: frozenset[str] = UNWRITTEN) -> None:
    """Raises :class:`app.errors.InvalidRequest` for what a strict function cannot be held to."""
    for keyword in sorted(keywords & schema.keys()):
        if tool.strict:
            raise _unwritable(tool, f"the keyword {keyword}")


def other_names(rules: Rules, found: Members) -> list[tuple[str, AnySchema]]:
    """For each further kind of parameters a rule for their names, and the schema of their values."""
    taken = "|".join(slashed(re.escape(name)) for name in found.properties)
    without = f" & ~/({taken})/" if taken else ""
    return [
        (rules.token(f"/{OTHER_NAME}/" + ("" if pattern is None else f" & /{searched(pattern)}/") + without), schema)
        for pattern, schema in found.others
    ]


def _unwritable(tool: Tool, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"Function '{tool.name}': {what} cannot be enforced in this model's way to call functions. Remove it, or leave "
        "strict out.",
        param=tool.param,
        code="grammar_not_supported",
    )
