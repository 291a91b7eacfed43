"""Kimi K2: a section of calls, each with an id that names the function, then JSON."""

import re

from app.generation.tools.format import Calls, Section, long_id
from app.generation.tools.json_text import json_value
from app.generation.tools.rules import Rules
from app.generation.tools.source import Malformed, Source, Steps
from app.generation.tools.toolbox import Toolbox

START, END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
CALL, ARGUMENTS, CALL_END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
NAMED = re.compile(r"(?:functions\.)?(?P<name>.+):\d+")


class KimiK2:
    """``<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{...}<|tool_call_end|>``, again and again."""

    section = Section(START, (END, CALL, ARGUMENTS, CALL_END))
    new_id = staticmethod(long_id)

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """All calls of the section. Their ids are the model's own, as its template wants them back."""
        yield from source.space()
        while (yield from source.accept(CALL)) is not None:
            spelt, _ = yield from source.until(ARGUMENTS)
            named = NAMED.fullmatch(spelt.strip())
            if named is None or not tools.knows(named["name"]):
                raise Malformed
            calls.begin(named["name"], spelt.strip())
            yield from json_value(source, calls.arguments)
            yield from source.space()
            yield from source.expect(CALL_END)
            yield from source.space()
        yield from source.expect(END)

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """Calls numbered as the model likes."""
        calls = [
            rules.rule(
                f"{rules.text(f'{CALL}functions.{tool.name}:')} /[0-9]{{1,2}}/ {rules.text(ARGUMENTS)} "
                f"{rules.arguments(tool)} {rules.text(CALL_END)}"
            )
            for tool in tools.tools
        ]
        return rules.rule(f"{rules.repeated(rules.one_of(calls), '')} {rules.text(END)}")
