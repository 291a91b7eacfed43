"""Llama 3.1 to 3.3: the answer is a JSON object ``{"name": ..., "parameters": {...}}`` and nothing else."""

from app.generation.tools.format import Calls, Section, long_id
from app.generation.tools.json_call import call_rule, read_call
from app.generation.tools.rules import Rules
from app.generation.tools.source import Source, Steps
from app.generation.tools.toolbox import Toolbox

TAG = "<|python_tag|>"


class Llama3:
    """No mark begins a call: an answer that begins like one is one. ``<|python_tag|>`` may stand before it."""

    section = Section("", (TAG,))
    new_id = staticmethod(long_id)

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """One call, or several separated by semicolons."""
        yield from source.space()
        yield from source.accept(TAG)
        while True:
            yield from read_call(source, calls, tools)
            yield from source.space()
            if (yield from source.accept(";")) is None:
                return

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """Calls with semicolons between them; the mark may stand before them."""
        call = rules.one_of([call_rule(rules, tool, key="parameters") for tool in tools.tools])
        listed = rules.repeated(call, rules.text("; "))
        return rules.rule(f"{rules.text(TAG)}? {listed}") if rules.has(TAG) else listed
