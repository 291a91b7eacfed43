"""DeepSeek R1, V3 and V3.1: calls between marks of full width, each a name and JSON."""

from app.generation.tools.format import Calls, Section, long_id
from app.generation.tools.json_text import json_value
from app.generation.tools.rules import Rules
from app.generation.tools.source import Malformed, Source, Steps
from app.generation.tools.toolbox import Tool, Toolbox

START, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, SEP, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
FENCE = "```"


class DeepSeek:
    """V3.1 writes ``f<｜tool▁sep｜>{...}``, those before (``fenced``) ``function<｜tool▁sep｜>f`` and JSON in a block.

    Both ways are read, whichever the model is known for.
    """

    section = Section(START, (END, CALL, SEP, CALL_END))
    new_id = staticmethod(long_id)

    def __init__(self, *, fenced: bool) -> None:
        self._fenced = fenced

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """All calls of the section."""
        yield from source.space()
        while (yield from source.accept(CALL)) is not None:
            name, _ = yield from source.until(SEP)
            yield from source.space()
            fenced = not (yield from source.need(1)).startswith("{")
            if fenced:
                name, _ = yield from source.until("\n")
                yield from source.space()
                yield from source.accept(f"{FENCE}json", FENCE)
            if not tools.knows(name.strip()):
                raise Malformed
            calls.begin(name.strip())
            yield from json_value(source, calls.arguments)
            yield from source.space()
            if fenced:
                yield from source.accept(FENCE)
                yield from source.space()
            yield from source.expect(CALL_END)
            yield from source.space()
        yield from source.expect(END)

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """In the model's own way."""
        call = rules.one_of([self._call_rule(rules, tool) for tool in tools.tools])
        listed = rules.repeated(call, rules.text("\n") if self._fenced else "")
        return rules.rule(f"{listed} {rules.text(END)}")

    def _call_rule(self, rules: Rules, tool: Tool) -> str:
        if self._fenced:
            before, after = f"{CALL}function{SEP}{tool.name}\n{FENCE}json\n", f"\n{FENCE}{CALL_END}"
        else:
            before, after = f"{CALL}{tool.name}{SEP}", CALL_END
        return rules.rule(f"{rules.text(before)} {rules.arguments(tool)} {rules.text(after)}")
