"""Calls as tags: a name, then each parameter between tags of its own, texts as they are and all else as JSON."""

from msgspec import Struct

from app.generation.schema.keywords import AnySchema
from app.generation.schema.members import types
from app.generation.tools.format import Calls, Section, long_id
from app.generation.tools.json_text import escaped
from app.generation.tools.parameters import other_names, parameters
from app.generation.tools.rules import Rules, spelt
from app.generation.tools.source import Malformed, Source, Steps
from app.generation.tools.string_rules import text_rule
from app.generation.tools.toolbox import Tool, Toolbox
from app.generation.tools.values import converted, value_text

CDATA, CDATA_END = "<![CDATA[", "]]>"


class Tags(Struct, frozen=True, kw_only=True):
    """A family's tags.

    ``call`` stands before a function's name (nothing: the section's start does) and ``named`` after it (nothing: the
    next tag does); ``key`` before a parameter's name, ``value`` after it and one of ``kinds``, if there are, for a text
    and for JSON; ``value_end`` after its value; ``call_end``
    after all parameters; ``end`` after all calls of a section (nothing: there is but one). When a call is forced,
    ``gap`` separates tags (``loose``: may separate them) and ``pad`` stands around values; both are white space, and
    any may stand there when one is read.
    """

    section: Section
    call: str = ""
    named: str = ""
    key: str
    value: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    value_end: str
    call_end: str
    end: str = ""
    gap: str = ""
    pad: str = ""
    loose: bool = False


class Tagged:
    """Calls between ``tags``."""

    new_id = staticmethod(long_id)

    def __init__(self, tags: Tags) -> None:
        self.section = tags.section
        self._tags = tags

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """One call, or all of the section."""
        tags = self._tags
        if not tags.end:
            yield from self._call(source, calls, tools)
            return
        while True:
            yield from source.space()
            if (yield from source.accept(tags.end)) is not None:
                return
            yield from source.expect(tags.call)
            yield from self._call(source, calls, tools)

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """Parameters in the schema's order."""
        tags = self._tags
        call = rules.one_of([self._call_rule(rules, tool) for tool in tools.tools])
        if not tags.end:
            return call
        gap = rules.text(tags.gap)
        listed = rules.repeated(call, gap)
        return rules.rule(f"{gap} {listed} {rules.text(tags.gap + tags.end)}")

    def _call(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        tags = self._tags
        ends = (tags.named,) if tags.named else (tags.key, tags.call_end)
        name, mark = yield from source.until(*ends)
        name = name.strip()
        if not tools.knows(name):
            raise Malformed
        calls.begin(name)
        count = 0
        while True:
            if mark not in (tags.key, tags.call_end):
                yield from source.space()
                mark = (yield from source.accept(tags.key, tags.call_end)) or ""
            if mark != tags.key:
                break
            yield from self._parameter(source, calls, tools, name, count)
            count, mark = count + 1, ""
        calls.arguments("}" if count else "{}")
        if mark != tags.call_end:
            raise Malformed

    def _parameter(self, source: Source, calls: Calls, tools: Toolbox, name: str, count: int) -> Steps[None]:
        tags = self._tags
        key, _ = yield from source.until(tags.value[0])
        for tag in tags.value[1:]:
            yield from source.space()
            yield from source.expect(tag)
        key = key.strip()
        calls.arguments(f"{', ' if count else '{'}{spelt(key)}: ")
        kind = (yield from source.accept(*tags.kinds)) if tags.kinds else None
        yield from source.accept(*((tags.pad,) if tags.pad else ()))
        kinds = tools.kinds(name, key) - ({"string"} if kind in tags.kinds[1:] else set())
        if kind in tags.kinds[:1] or (kind is None and kinds == {"string"}):
            yield from self._text(source, calls)
            return
        raw = yield from value_text(source, tags.value_end, kinds)
        calls.arguments(converted(raw.removesuffix(tags.pad), kinds))

    def _text(self, source: Source, calls: Calls) -> Steps[None]:
        """A text, handed on as it comes."""
        calls.arguments('"')
        ends = {self._tags.pad + self._tags.value_end, self._tags.value_end}
        if (yield from source.accept(CDATA)) is not None:
            ends = {CDATA_END + self._tags.value_end}
        yield from source.stream(tuple(ends), lambda text: calls.arguments(escaped(text)))
        calls.arguments('"')

    def _call_rule(self, rules: Rules, tool: Tool) -> str:
        tags = self._tags
        found = parameters(tool, (tags.value[0], tags.key, tags.call_end))
        parts = [rules.text(tags.call + tool.name + tags.named), self._gap(rules)]
        for key, schema in found.properties.items():
            rule = self._parameter_rule(rules, tool, rules.text(key), schema)
            parts.append(rule if key in found.required else f"{rule}?")
        others = [self._parameter_rule(rules, tool, key, schema) for key, schema in other_names(rules, found)]
        parts += [f"{rules.one_of(others)}*"] if others else []
        return rules.rule(" ".join([*parts, rules.text(tags.call_end)]))

    def _parameter_rule(self, rules: Rules, tool: Tool, key: str, schema: AnySchema) -> str:
        tags = self._tags
        gap = self._gap(rules)
        before = f" {gap} ".join(rules.text(tag) for tag in tags.value)
        value = text_rule(rules, schema, tool, tags.pad + tags.value_end)
        if tags.kinds and types(schema, tool.parameters) == {"string"}:
            before = f"{before} {rules.text(tags.kinds[0])}"
        elif tags.kinds:
            before = f"{before} {rules.text(tags.kinds[1])}"
            value = f"{rules.part(schema, tool)} {rules.text(tags.pad + tags.value_end)}"
        return rules.rule(f"{rules.text(tags.key)} {key} {before} {rules.text(tags.pad)} {value} {gap}")

    def _gap(self, rules: Rules) -> str:
        return rules.text(self._tags.gap) + ("?" if self._tags.loose else "")
