"""Qwen 2.5 and 3, Hermes and many others: ``<tool_call>`` around a JSON object."""

from app.generation.tools.format import Calls, Section, long_id
from app.generation.tools.json_call import call_rule, read_call
from app.generation.tools.rules import Rules
from app.generation.tools.source import Source, Steps
from app.generation.tools.toolbox import Toolbox

START, END = "<tool_call>", "</tool_call>"


class JSONTools:
    r"""``<tool_call>\n{"name": "f", "arguments": {...}}\n</tool_call>``, one section a call."""

    section = Section(START, (END,))
    new_id = staticmethod(long_id)

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """One call."""
        yield from read_call(source, calls, tools)
        yield from source.space()
        yield from source.expect(END)

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """One call; further ones have sections of their own."""
        call = rules.one_of([call_rule(rules, tool) for tool in tools.tools])
        return rules.rule(f"{rules.text(chr(10))} {call} {rules.text(chr(10) + END)}")
