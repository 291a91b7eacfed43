"""Kimi K3: calls and arguments as elements whose marks have attributes, each argument with its type."""

import re

from app.generation.schema.keywords import AnySchema
from app.generation.schema.members import joined, types
from app.generation.tools.format import Calls, Section, long_id
from app.generation.tools.json_text import escaped, json_value
from app.generation.tools.parameters import other_names, parameters
from app.generation.tools.rules import Rules, spelt
from app.generation.tools.source import Malformed, Source, Steps
from app.generation.tools.string_rules import text_rule
from app.generation.tools.toolbox import Tool, Toolbox
from app.generation.tools.values import converted, value_text

OPEN, CLOSE, SEP = "<|open|>", "<|close|>", "<|sep|>"
ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
TYPES = ("array", "boolean", "null", "number", "object", "string")


class KimiK3:
    """``<|open|>call tool="f" index="1"<|sep|>``, its arguments or one JSON object, ``<|close|>call<|sep|>``."""

    section = Section(
        f"{OPEN}tools{SEP}",
        (
            f"{CLOSE}tools{SEP}",
            f"{OPEN}response{SEP}",
            f"{CLOSE}response{SEP}",
            f"{CLOSE}message{SEP}",
        ),
    )
    new_id = staticmethod(long_id)

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """All calls of the section."""
        yield from source.space()
        while (yield from source.accept(f"{OPEN}call")) is not None:
            name = (yield from _attributes(source)).get("tool", "")
            if not tools.knows(name):
                raise Malformed
            calls.begin(name)
            yield from self._arguments(source, calls, tools, name)
            yield from source.space()
        yield from source.expect(f"{CLOSE}tools{SEP}")

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """Arguments in the schema's order, each of the types that it may have."""
        call = rules.one_of([_call_rule(rules, tool) for tool in tools.tools])
        return rules.rule(f"{rules.repeated(call, '')} {rules.text(f'{CLOSE}tools{SEP}')}")

    def _arguments(self, source: Source, calls: Calls, tools: Toolbox, name: str) -> Steps[None]:
        marks = (f"{OPEN}argument", f"{OPEN}json", f"{CLOSE}call{SEP}")
        count = 0
        while True:
            yield from source.space()
            mark = yield from source.accept(*marks)
            if mark == marks[0]:
                calls.arguments(", " if count else "{")
                yield from self._argument(source, calls, tools, name)
                count += 1
            elif mark == marks[1] and not count:
                yield from _attributes(source)
                yield from json_value(source, calls.arguments)
                yield from source.space()
                yield from source.expect(f"{CLOSE}json{SEP}")
                yield from source.space()
                yield from source.expect(marks[2])
                return
            else:
                break
        calls.arguments("}" if count else "{}")
        if mark is None:
            raise Malformed

    def _argument(self, source: Source, calls: Calls, tools: Toolbox, name: str) -> Steps[None]:
        attributes = yield from _attributes(source)
        key, end = attributes.get("key", ""), f"{CLOSE}argument{SEP}"
        calls.arguments(f"{spelt(key)}: ")
        kind = attributes.get("type")
        kinds = tools.kinds(name, key) if kind is None else {kind}
        if kinds == {"string"}:
            calls.arguments('"')
            yield from source.stream((end,), lambda text: calls.arguments(escaped(text)))
            calls.arguments('"')
            return
        raw = yield from value_text(source, end, kinds)
        calls.arguments(converted(raw, kinds))


def _attributes(source: Source) -> Steps[dict[str, str]]:
    """The rest of an opening mark."""
    spelt_out, _ = yield from source.until(SEP)
    found = ATTRIBUTE.findall(spelt_out)
    return {key: value.replace("&quot;", '"').replace("&amp;", "&") for key, value in found}


def _call_rule(rules: Rules, tool: Tool) -> str:
    found = parameters(tool, (SEP,))
    parts = [rules.text(f'{OPEN}call tool="{tool.name}" index="'), "/[0-9]{1,2}/", rules.text(f'"{SEP}')]
    for key, schema in found.properties.items():
        rule = _argument_rule(rules, tool, rules.text(key.replace("&", "&amp;").replace('"', "&quot;")), schema)
        parts.append(rule if key in found.required else f"{rule}?")
    others = [_argument_rule(rules, tool, key, schema) for key, schema in other_names(rules, found)]
    parts += [f"{rules.one_of(others)}*"] if others else []
    return rules.rule(" ".join([*parts, rules.text(f"{CLOSE}call{SEP}")]))


def _argument_rule(rules: Rules, tool: Tool, key: str, schema: AnySchema) -> str:
    """An argument whose name ``key`` is the rule for."""
    end = f"{CLOSE}argument{SEP}"
    alternatives = []
    for kind in sorted(types(schema, tool.parameters)) or TYPES:
        single = joined({"type": kind}, schema)
        text = kind == "string"
        value = text_rule(rules, single, tool, end) if text else f"{rules.part(single, tool)} {rules.text(end)}"
        before, after = f'{OPEN}argument key="', f'" type="{kind}"{SEP}'
        opening = f"{rules.text(before)} {key} {rules.text(after)}"
        alternatives.append(rules.rule(f"{opening} {value}"))
    return rules.one_of(alternatives)
