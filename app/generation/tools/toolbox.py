"""The functions that a model may call."""

from typing import Any

from msgspec import Struct

Schema = dict[str, Any]
"""A JSON schema: an open form, so it has no struct."""

NAMES = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}


class Tool(Struct, frozen=True):
    """One function.

    A ``strict`` one holds the model to every keyword of ``parameters``, another to those that can be enforced.
    """

    name: str
    parameters: Schema
    description: str | None = None
    strict: bool = False

    @property
    def takes_any(self) -> bool:
        """Whether parameters of any name are asked for."""
        other = self.parameters.get("additionalProperties")
        return other is True or isinstance(other, dict)

    @property
    def enforced(self) -> Schema:
        """The parameters as a call is held to them: where they say nothing of other names, there are none."""
        open_ended = self.parameters.keys() & {
            "additionalProperties",
            "patternProperties",
            "allOf",
            "anyOf",
            "oneOf",
            "$ref",
        }
        closed = {} if open_ended or "properties" not in self.parameters else {"additionalProperties": False}
        return self.parameters | closed

    def told(self) -> dict[str, Any]:
        """As chat templates read it."""
        function: dict[str, Any] = {"name": self.name, "parameters": self.parameters}
        if self.description is not None:
            function["description"] = self.description
        return {"type": "function", "function": function}


class Toolbox:
    """Functions by name."""

    def __init__(self, tools: tuple[Tool, ...]) -> None:
        self.tools = tools
        self._by_name = {tool.name: tool for tool in tools}

    def knows(self, name: str) -> bool:
        """Whether there is a function of that name."""
        return name in self._by_name

    def parameters(self, name: str) -> Schema:
        """The schema of a function's parameters."""
        tool = self._by_name.get(name)
        return {} if tool is None else tool.parameters

    def property(self, name: str, key: str) -> Schema:
        """The schema of one parameter; empty if nothing is said of it."""
        tool = self._by_name.get(name)
        if tool is None:
            return {}
        properties = tool.parameters.get("properties")
        found = properties.get(key) if isinstance(properties, dict) else None
        return resolved(found, tool.parameters) if isinstance(found, dict) else {}


def resolved(schema: Schema, root: Schema) -> Schema:
    """``schema``, or what its ``$ref`` into ``root`` points to."""
    for _ in range(8):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return schema
        place: Any = root
        for part in reference[2:].split("/"):
            place = place.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            return {}
        schema = place
    return {}


def types(schema: Schema, root: Schema) -> set[str]:
    """The JSON types that values of ``schema`` may have; empty if it does not say."""
    schema = resolved(schema, root)
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, list):
        return {it for it in named if isinstance(it, str)}
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        return {type_of(value) for value in values}
    branches = [it for key in ("anyOf", "oneOf") for it in schema.get(key, ()) if isinstance(it, dict)]
    found = [types(branch, root) for branch in branches]
    return set().union(*found) if all(found) else set()


def type_of(value: Any) -> str:
    """JSON's name for the type of a decoded value."""
    return NAMES.get(type(value), "object")
