"""One call as a JSON object: ``{"name": ..., "arguments": {...}}``."""

from collections.abc import Sequence

from app.generation.tools.format import Calls
from app.generation.tools.json_text import json_string, json_value
from app.generation.tools.rules import Rules, spelt
from app.generation.tools.source import Malformed, Source, Steps
from app.generation.tools.toolbox import Tool, Toolbox

ARGUMENTS = ("arguments", "parameters")


def read_call(
    source: Source, calls: Calls, tools: Toolbox, *, named: str = "name", keys: Sequence[str] = ARGUMENTS
) -> Steps[None]:
    """Read the object; the call begins once its name is known, in whatever order the members stand.

    The function's name is the member ``named``, its arguments are one of ``keys``.
    """
    name: str | None = None
    call_id: str | None = None
    early: list[str] | None = None
    begun = False
    yield from source.space()
    yield from source.expect("{")
    while True:
        yield from source.space()
        key = yield from json_string(source)
        yield from source.space()
        yield from source.expect(":")
        yield from source.space()
        if key == named:
            name = yield from json_string(source)
        elif key == "id":
            call_id = yield from json_string(source)
        elif key in keys and name is not None:
            _begin(calls, tools, name, call_id)
            begun = True
            yield from _arguments(source, calls)
        elif key in keys:
            early = []
            yield from json_value(source, early.append)
        else:
            yield from json_value(source, _ignore)
        yield from source.space()
        if (yield from source.accept(",")) is None:
            break
    yield from source.expect("}")
    if name is None:
        raise Malformed
    if not begun:
        _begin(calls, tools, name, call_id)
        calls.arguments("{}" if early is None else "".join(early))


def call_rule(rules: Rules, tool: Tool, *, named: str = "name", key: str = "arguments") -> str:
    """The rule of one function's call."""
    head = f'{{"{named}": {spelt(tool.name)}, "{key}": '
    return rules.rule(f"{rules.text(head)} {rules.arguments(tool)} {rules.text('}')}")


def _begin(calls: Calls, tools: Toolbox, name: str, call_id: str | None) -> None:
    if not tools.knows(name):
        raise Malformed
    calls.begin(name, call_id)


def _arguments(source: Source, calls: Calls) -> Steps[None]:
    """An object, handed on as it comes; some models write it as a string, which is opened first."""
    yield from source.need(1)
    if source.available.startswith('"'):
        text = yield from json_string(source)
        calls.arguments(text)
    else:
        yield from json_value(source, calls.arguments)


def _ignore(_text: str) -> None:
    pass
