"""JSON schemas as grammars of Gemma's own way to write values."""

from typing import Any

from app.errors import InvalidRequest
from app.generation.tools.rules import Rules, embedded, spelt
from app.generation.tools.string_rules import text_rule
from app.generation.tools.toolbox import Schema, Tool, types

UNWRITTEN = frozenset(
    {
        "allOf", "contains", "dependentRequired", "dependentSchemas", "else", "if", "maxProperties", "minProperties",
        "not", "patternProperties", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties", "uniqueItems",
    }
)  # fmt: skip
"""Keywords that no rule is written for; strict functions that use them are refused."""


class GemmaWriter:
    """Rules for the arguments of one function. Objects have the properties that are named, and no others."""

    def __init__(self, rules: Rules, quote: str, tool: Tool) -> None:
        self._rules = rules
        self._quote = quote
        self._tool = tool
        self._references: dict[str, str] = {}

    def arguments(self) -> str:
        """The object of all parameters."""
        return self._object(self._tool.parameters)

    def _value(self, schema: Any) -> str:
        if not isinstance(schema, dict) or not schema:
            return self._anything()
        self._check(schema)
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return self._reference(reference)
        if "const" in schema or "enum" in schema:
            values = [schema["const"]] if "const" in schema else schema["enum"]
            return self._rules.one_of([self._rules.rule(self._rules.text(self._literal(value))) for value in values])
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self._rules.one_of([self._value(branch) for branch in schema[key]])
        kinds = sorted(types(schema, self._tool.parameters))
        if not kinds:
            return self._anything()
        return self._rules.one_of([self._of_type(kind, schema) for kind in kinds])

    def _of_type(self, kind: str, schema: Schema) -> str:
        rules = self._rules
        if kind == "string":
            single = {key: value for key, value in schema.items() if key != "type"} | {"type": "string"}
            return rules.rule(f"{rules.text(self._quote)} {text_rule(rules, single, self._tool, self._quote)}")
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return self._array(schema)
        single = {key: value for key, value in schema.items() if key != "type"} | {"type": kind}
        return rules.json(embedded(single, self._tool.parameters), strict=self._tool.strict)

    def _object(self, schema: Schema) -> str:
        self._check(schema)
        properties = schema.get("properties")
        required = schema.get("required", ())
        members = [
            (self._rules.rule(f"{self._rules.text(key + ':')} {self._value(inner)}"), key in required)
            for key, inner in (properties if isinstance(properties, dict) else {}).items()
        ]
        return self._rules.rule(f'"{{" {self._rules.members(members, self._rules.text(","))} "}}"')

    def _array(self, schema: Schema) -> str:
        item = self._value(schema.get("items"))
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most == 0:
            return self._rules.rule('"[" "]"')
        more = f'("," {item}){{{max(0, least - 1)},{"" if most is None else most - 1}}}'
        filled = f'"[" {item} {more} "]"'
        return self._rules.rule(filled if least else f'{filled} | "[" "]"')

    def _reference(self, reference: str) -> str:
        """A rule for each thing referred to, so that schemas may refer to themselves."""
        if reference not in self._references:
            name = self._references[reference] = self._rules.reserve()
            target = _target(reference, self._tool.parameters)
            self._rules.define(name, self._value(target))
        return self._references[reference]

    def _anything(self) -> str:
        rules = self._rules
        text = rules.rule(f"{rules.text(self._quote)} {rules.raw(self._quote)}")
        return rules.one_of([text, rules.json({"type": ["number", "boolean", "null"]}, strict=True)])

    def _literal(self, value: Any) -> str:
        if isinstance(value, str):
            return f"{self._quote}{value}{self._quote}"
        if isinstance(value, dict):
            return "{" + ",".join(f"{key}:{self._literal(inner)}" for key, inner in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ",".join(self._literal(inner) for inner in value) + "]"
        return spelt(value)

    def _check(self, schema: Schema) -> None:
        for keyword in UNWRITTEN & schema.keys():
            if self._tool.strict:
                raise InvalidRequest(
                    f"The keyword {keyword} cannot be enforced in this model's way to call functions; remove it from "
                    f"the parameters of '{self._tool.name}', or leave strict out.",
                    param="tools",
                    code="grammar_not_supported",
                )


def _target(reference: str, root: Schema) -> Any:
    place: Any = root
    for part in reference.removeprefix("#").strip("/").split("/") if reference != "#" else ():
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(place, dict) or name not in place:
            raise InvalidRequest(f"'{reference[:100]}' refers to nothing.", param="tools", code="grammar_not_supported")
        place = place[name]
    return place
