"""Mistral: ``[TOOL_CALLS]`` before a JSON list of calls, or, in newer models, before each name."""

from app.generation.tools.format import Calls, Section, short_id
from app.generation.tools.json_call import call_rule, read_call
from app.generation.tools.json_text import json_value
from app.generation.tools.rules import Rules
from app.generation.tools.source import Malformed, Source, Steps
from app.generation.tools.toolbox import Toolbox

START, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"


class Mistral:
    """``[TOOL_CALLS] [{"name": "f", "arguments": {...}}]`` or ``[TOOL_CALLS]f[ARGS]{...}``; nothing ends a section."""

    section = Section(START, (ARGS, CALL_ID))
    new_id = staticmethod(short_id)

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """A list of calls, or one named call."""
        yield from source.space()
        if (yield from source.accept("[")) is None:
            yield from self._named(source, calls, tools)
            return
        while True:
            yield from read_call(source, calls, tools)
            yield from source.space()
            if (yield from source.accept(",")) is None:
                break
        yield from source.expect("]")

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """In the newer way if the tokenizer has its marks."""
        if rules.has(ARGS):
            call_id = f"({rules.text(CALL_ID)} /[A-Za-z0-9]{{9}}/)?" if rules.has(CALL_ID) else ""
            return rules.one_of(
                [
                    rules.rule(f"{rules.text(tool.name)} {call_id} {rules.text(ARGS)} {rules.arguments(tool)}")
                    for tool in tools.tools
                ]
            )
        call = rules.one_of([call_rule(rules, tool) for tool in tools.tools])
        listed = rules.repeated(call, rules.text(", "))
        return rules.rule(f"{rules.text('[')} {listed} {rules.text(']')}")

    def _named(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        call_id: str | None = None
        name, mark = yield from source.until(ARGS, CALL_ID, START)
        if mark == CALL_ID:
            call_id, mark = yield from source.until(ARGS, START)
        if mark == START or not tools.knows(name.strip()):
            raise Malformed
        calls.begin(name.strip(), call_id)
        yield from json_value(source, calls.arguments)
