"""JSON schemas as grammars of Gemma's own way to write values."""

from typing import Any

from app.errors import InvalidRequest
from app.generation.schema.keywords import AnySchema, Schema
from app.generation.schema.members import joined, members, plain, says_nothing, types
from app.generation.schema.references import target
from app.generation.tools.parameters import UNWRITTEN, check, check_name, other_names, parameters
from app.generation.tools.rules import Rules, spelt
from app.generation.tools.string_rules import text_rule
from app.generation.tools.toolbox import Tool

DEPTH = 40
INNER = UNWRITTEN - {"anyOf", "oneOf"}
"""What no rule is written for inside a value."""


class GemmaWriter:
    """Rules for the arguments of one function."""

    def __init__(self, rules: Rules, quote: str, tool: Tool) -> None:
        self._rules = rules
        self._quote = quote
        self._tool = tool
        self._marks = (":", '"', quote)
        self._references: dict[str, str] = {}
        self._depth = 0

    def arguments(self) -> str:
        """The object of all parameters."""
        parameters(self._tool, self._marks)
        return self._object(self._tool.parameters)

    def _value(self, schema: AnySchema) -> str:
        if says_nothing(schema):
            return self._anything()
        if isinstance(schema, dict) and schema.keys() == {"$ref"}:
            return self._reference(schema["$ref"])
        if self._depth > DEPTH:
            raise InvalidRequest("A schema is nested too deeply.", param="tools", code="grammar_not_supported")
        self._depth += 1
        made = self._plain(plain(schema, self._tool.parameters), schema)
        self._depth -= 1
        return made

    def _plain(self, flat: Schema, schema: AnySchema) -> str:
        check(flat, self._tool, INNER)
        kinds = types(schema, self._tool.parameters)
        if "const" in flat or "enum" in flat:
            values = [flat["const"]] if "const" in flat else flat["enum"]
            rules = [self._rules.rule(self._rules.text(text)) for value in values if (text := self._literal(value))]
            return self._rules.one_of(rules or [self._rules.part(False, self._tool)])
        for key in ("anyOf", "oneOf"):
            if key in flat:
                rest: Schema = {name: value for name, value in flat.items() if name != key}
                return self._rules.one_of([self._value(joined(rest, branch)) for branch in flat[key]])
        if not kinds:
            return self._anything()
        return self._rules.one_of([self._of_type(kind, flat) for kind in sorted(kinds)])

    def _of_type(self, kind: str, schema: Schema) -> str:
        rules, single = self._rules, {**schema, "type": kind}
        if kind == "string":
            return rules.rule(f"{rules.text(self._quote)} {text_rule(rules, single, self._tool, self._quote)}")
        if kind == "object":
            return self._object(single)
        if kind == "array":
            return self._array(single)
        return rules.part({key: value for key, value in single.items() if key != "patterns"}, self._tool)

    def _object(self, schema: Schema) -> str:
        found = members(schema, self._tool.parameters)
        for name in found.properties:
            check_name(name, self._marks, self._tool)
        rules = [
            (self._rules.rule(f"{self._rules.text(key + ':')} {self._value(inner)}"), key in found.required)
            for key, inner in found.properties.items()
        ]
        others = [
            self._rules.rule(f"{key} {self._rules.text(':')} {self._value(inner)}")
            for key, inner in other_names(self._rules, found)
        ]
        listed = self._rules.members(rules, self._rules.text(","), self._rules.one_of(others) if others else "")
        return self._rules.rule(f'"{{" {listed} "}}"')

    def _array(self, schema: Schema) -> str:
        """First the items that have a schema of their own, then any number of others."""
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        first = [self._value(item) for item in schema.get("prefixItems", ())][:most]
        others = schema.get("items", True)
        more = "" if others is False or (most is not None and most <= len(first)) else self._value(others)
        if least > (most if most is not None else least) or (not more and least > len(first)):
            return self._rules.part(False, self._tool)
        lowest = max(0, least - len(first))
        highest = "" if most is None else str(most - len(first))
        later = self._rules.rule(f'("," {more}){{{lowest},{highest}}}') if more else '""'
        if not first and more:
            rest = f'("," {more}){{{max(0, least - 1)},{"" if most is None else most - 1}}}' if most != 1 else ""
            filled = f'"[" {more} {rest} "]"'
            return self._rules.rule(filled if least else f'{filled} | "[" "]"')
        for at in range(len(first) - 1, -1, -1):
            comma = '"," ' if at else ""
            later = self._rules.rule(f"{comma}{first[at]} {later}" + ("" if at < least else ' | ""'))
        return self._rules.rule(f'"[" {later} "]"')

    def _reference(self, reference: str) -> str:
        """A rule for each thing referred to, so that schemas may refer to themselves."""
        if reference not in self._references:
            found = target(reference, self._tool.parameters)
            if found is None:
                raise InvalidRequest(
                    f"Function '{self._tool.name}': '{reference[:100]}' refers to nothing.",
                    param=self._tool.param,
                    code="grammar_not_supported",
                )
            name = self._references[reference] = self._rules.reserve()
            self._rules.define(name, self._value(found))
        return self._references[reference]

    def _anything(self) -> str:
        rules = self._rules
        text = rules.rule(f"{rules.text(self._quote)} {rules.raw(self._quote)}")
        return rules.one_of([text, rules.json({"type": ["number", "boolean", "null"]}, strict=True)])

    def _literal(self, value: Any) -> str:
        """A value spelt; nothing for a text that holds the mark around texts."""
        if isinstance(value, str):
            return "" if self._quote in value else f"{self._quote}{value}{self._quote}"
        if isinstance(value, dict):
            return "{" + ",".join(f"{key}:{self._literal(inner)}" for key, inner in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ",".join(self._literal(inner) for inner in value) + "]"
        return spelt(value)
