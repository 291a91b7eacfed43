"""The functions that a model may call."""

from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct, structs

from app.generation.schema.keywords import AnySchema, Schema
from app.generation.schema.members import Members, members, types
from app.generation.schema.reading import enforced

ANY_OBJECT: Schema = {"type": "object"}


class Tool(Struct, frozen=True):
    """One function; ``parameters`` is its schema as it was sent, checked.

    A ``strict`` one holds the model to every keyword of ``parameters``, another to those that can be enforced.
    ``rest`` are further members that the client sent, for the model to see. ``param`` is the request field that
    ``parameters`` came from.
    """

    name: str
    parameters: Schema
    description: str | None = None
    strict: bool = False
    rest: dict[str, Any] = {}
    param: str = "tools"

    def definition(self) -> dict[str, Any]:
        """As chat templates read it, in the order that models were trained on."""
        described = {} if self.description is None else {"description": self.description}
        function = {"name": self.name, **described, "parameters": self.parameters, **self.rest}
        return {"type": "function", "function": function}

    def held(self) -> "Tool":
        """With the schema that calls are held to: references resolved, objects closed where it says nothing else."""
        schema = _enforced(msgspec.json.encode(self.parameters))
        none = self.parameters.get("properties") == {} and "additionalProperties" not in self.parameters
        closed = {"additionalProperties": False} if none else {}
        return structs.replace(self, parameters={**schema, **closed} if isinstance(schema, dict) else {"enum": []})

    def freed(self) -> "Tool":
        """Without a schema: any object will do."""
        return structs.replace(self, parameters=ANY_OBJECT, strict=False)


@lru_cache(maxsize=1024)
def _enforced(written: bytes) -> AnySchema:
    """Kept, because agents send the same functions with every turn; nobody changes what is returned."""
    return enforced(msgspec.json.decode(written))


class Toolbox:
    """Functions by name, their schemas as calls are held to them."""

    def __init__(self, tools: tuple[Tool, ...]) -> None:
        self.tools = tools
        self._by_name = {tool.name: tool for tool in tools}
        self._members: dict[str, Members] = {}

    def knows(self, name: str) -> bool:
        """Whether there is a function of that name."""
        return name in self._by_name

    def kinds(self, name: str, key: str) -> set[str]:
        """The JSON types that an argument may have; empty if nothing is said of it."""
        tool = self._by_name.get(name)
        if tool is None:
            return set()
        if name not in self._members:
            self._members[name] = members(tool.parameters, tool.parameters)
        known: AnySchema = self._members[name].properties.get(key, True)
        return types(known, tool.parameters)
