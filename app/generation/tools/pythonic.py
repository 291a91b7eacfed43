"""LFM2 and others: calls as Python writes them, ``[f(a=1, b="x"), g()]``."""

from app.generation.schema.keywords import AnySchema
from app.generation.schema.members import plain, types
from app.generation.tools.format import Calls, Section, long_id
from app.generation.tools.parameters import other_names, parameters
from app.generation.tools.rules import Rules, spelt
from app.generation.tools.source import Malformed, Source, Steps
from app.generation.tools.toolbox import Tool, Toolbox
from app.generation.tools.values import converted

START, END = "<|tool_call_start|>", "<|tool_call_end|>"
OPEN, CLOSE = "([{", ")]}"


class Pythonic:
    """Arguments come one by one; their values are Python's or JSON's.

    Calls stand in a list between ``start`` and ``end``; where they are not ``listed``, each on a line of its own.
    """

    new_id = staticmethod(long_id)

    def __init__(self, start: str = START, end: str = END, *, listed: bool = True) -> None:
        self.section = Section(start.strip(), tuple(filter(None, (end.strip(),))))
        self._end = end.strip()
        self._listed = listed

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """The list of calls, or its lines."""
        yield from source.space()
        if self._listed:
            yield from source.expect("[")
        while True:
            yield from self._call(source, calls, tools)
            if not self._listed:
                yield from source.space()
                if (yield from source.accept(self._end)) is not None:
                    return
                continue
            yield from source.space()
            if (yield from source.accept(",")) is None:
                break
        yield from source.expect("]")
        if self._end:
            yield from source.space()
            yield from source.expect(self._end)

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """Keyword arguments in the schema's order, their values as JSON but for Python's words."""
        call = rules.one_of([_call_rule(rules, tool) for tool in tools.tools])
        if not self._listed:
            return rules.rule(f"{rules.repeated(call, rules.text(chr(10)))} {rules.text(self._end)}")
        listed = rules.repeated(call, rules.text(", "))
        return rules.rule(f"{rules.text('[')} {listed} {rules.text(']' + self._end)}")

    def _call(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        name, _ = yield from source.until("(")
        name = name.strip()
        if not tools.knows(name):
            raise Malformed
        calls.begin(name)
        count = 0
        yield from source.space()
        while (yield from source.accept(")")) is None:
            if count:
                yield from source.expect(",")
            key, _ = yield from source.until("=")
            raw = yield from _value(source)
            kinds = tools.kinds(name, key.strip())
            calls.arguments(f"{', ' if count else '{'}{spelt(key.strip())}: {converted(raw, kinds)}")
            count += 1
            yield from source.space()
        calls.arguments("}" if count else "{}")


def _value(source: Source) -> Steps[str]:
    """One value's text: up to the comma or the bracket behind it."""
    pieces: list[str] = []
    depth = 0
    while True:
        character = yield from source.need(1)
        if character in "'\"":
            yield from _quoted(source, pieces)
            continue
        if not depth and (character == "," or character in CLOSE):
            return "".join(pieces)
        depth += (character in OPEN) - (character in CLOSE)
        pieces.append(source.take(1))


def _quoted(source: Source, pieces: list[str]) -> Steps[None]:
    quote = source.take(1)
    pieces.append(quote)
    while True:
        mark = yield from source.stream((quote, "\\"), pieces.append)
        pieces.append(mark)
        if mark == quote:
            return
        yield from source.need(1)
        pieces.append(source.take(1))


def _call_rule(rules: Rules, tool: Tool) -> str:
    found = parameters(tool, "=,()")
    members = [
        (rules.rule(f"{rules.text(key + '=')} {_value_rule(rules, schema, tool)}"), key in found.required)
        for key, schema in found.properties.items()
    ]
    others = [
        rules.rule(f"{key} {rules.text('=')} {_value_rule(rules, schema, tool)}")
        for key, schema in other_names(rules, found)
    ]
    listed = rules.members(members, rules.text(", "), rules.one_of(others) if others else "")
    return rules.rule(f"{rules.text(tool.name + '(')} {listed} {rules.text(')')}")


def _value_rule(rules: Rules, schema: AnySchema, tool: Tool) -> str:
    if types(schema, tool.parameters) == {"boolean"} and not plain(schema, tool.parameters).keys() & {"enum", "const"}:
        return rules.rule('"True" | "False"')
    return rules.part(schema, tool)
