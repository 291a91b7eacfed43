"""Lists of calls in JSON between marks: Command R7B and Apertus."""

from app.generation.tools.format import Calls, Section, long_id
from app.generation.tools.json_call import read_call
from app.generation.tools.json_text import json_string, json_value
from app.generation.tools.rules import Rules, spelt
from app.generation.tools.source import Malformed, Source, Steps
from app.generation.tools.toolbox import Tool, Toolbox

NAMED, KEY = "tool_name", "parameters"


class CommandR7B:
    """``<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "f", "parameters": {...}}]<|END_ACTION|>``.

    The model counts its calls from 0 in every answer, so that its numbers are no ids.
    """

    section = Section("<|START_ACTION|>", ("<|END_ACTION|>",))
    new_id = staticmethod(long_id)

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """All calls of the section."""
        yield from source.space()
        yield from source.expect("[")
        while True:
            yield from read_call(source, calls, tools, named=NAMED)
            yield from source.space()
            if (yield from source.accept(",")) is None:
                break
        yield from _end(source, "<|END_ACTION|>")

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """Laid out as the template does."""
        between = "\n    "
        calls = [_numbered(rules, tool) for tool in tools.tools]
        listed = rules.repeated(rules.one_of(calls), rules.text(f",{between}"))
        return rules.rule(f"{rules.text(f'[{between}')} {listed} {rules.text(chr(10) + ']<|END_ACTION|>')}")


class Apertus:
    """``<|tools_prefix|>[{"f": {...}}, {"g": {...}}]<|tools_suffix|>``: each call is an object with one member."""

    section = Section("<|tools_prefix|>", ("<|tools_suffix|>",))
    new_id = staticmethod(long_id)

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """All calls of the section."""
        yield from source.space()
        yield from source.expect("[")
        while True:
            yield from source.space()
            yield from source.expect("{")
            yield from source.space()
            name = yield from json_string(source)
            if not tools.knows(name):
                raise Malformed
            yield from source.space()
            yield from source.expect(":")
            calls.begin(name)
            yield from json_value(source, calls.arguments)
            yield from source.space()
            yield from source.expect("}")
            yield from source.space()
            if (yield from source.accept(",")) is None:
                break
        yield from _end(source, "<|tools_suffix|>")

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """One object a call."""
        calls = [_member(rules, tool) for tool in tools.tools]
        listed = rules.repeated(rules.one_of(calls), rules.text(", "))
        return rules.rule(f"{rules.text('[')} {listed} {rules.text(']<|tools_suffix|>')}")


def _end(source: Source, mark: str) -> Steps[None]:
    yield from source.expect("]")
    yield from source.space()
    yield from source.expect(mark)


def _numbered(rules: Rules, tool: Tool) -> str:
    head = f'", "{NAMED}": {spelt(tool.name)}, "{KEY}": '
    number = '{"tool_call_id": "'
    return rules.rule(
        f"{rules.text(number)} /[0-9]{{1,2}}/ {rules.text(head)} {rules.arguments(tool)} {rules.text('}')}"
    )


def _member(rules: Rules, tool: Tool) -> str:
    head = f"{{{spelt(tool.name)}: "
    return rules.rule(f"{rules.text(head)} {rules.arguments(tool)} {rules.text('}')}")
