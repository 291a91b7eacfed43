"""Calls in the words that a chat template writes around them, for ways to write calls that have no name here."""

from app.engine.text import CallWords
from app.generation.tools.format import Calls, Format, Section, long_id
from app.generation.tools.json_call import ARGUMENTS, call_rule, read_call
from app.generation.tools.json_text import json_value
from app.generation.tools.pythonic import Pythonic
from app.generation.tools.rules import MARKER, Rules
from app.generation.tools.source import Malformed, Source, Steps
from app.generation.tools.tagged import Tagged, Tags
from app.generation.tools.toolbox import Tool, Toolbox


def learnt(words: CallWords) -> Format:
    """The format that ``words`` tell."""
    if words.kind == "python":
        return Pythonic(words.start, words.end, listed=words.listed)
    if words.kind == "tags":
        return Tagged(_tags(words))
    return Objects(words) if words.kind == "object" else Named(words)


class Objects:
    """Objects of JSON, perhaps in a list, between ``start`` and ``end``; the latter may be missing."""

    new_id = staticmethod(long_id)

    def __init__(self, words: CallWords) -> None:
        self._words = words
        self.section = _section(words)

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """All calls of a section, however they are laid out."""
        words = self._words
        yield from source.space()
        listed = (yield from source.accept("[")) is not None
        while True:
            yield from read_call(source, calls, tools, named=words.named, keys=(words.key, *ARGUMENTS))
            yield from source.space()
            if (yield from source.accept(",", ";")) is None and not source.available.startswith("{"):
                break
        if listed:
            yield from source.expect("]")
        yield from _end(source, words.end)

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """As the template does."""
        words = self._words
        opening, closing = ("[", "]") if words.listed else ("", "")
        call = rules.one_of([call_rule(rules, tool, named=words.named, key=words.key) for tool in tools.tools])
        listed = rules.repeated(call, rules.text(", ")) if words.listed else call
        return rules.rule(f"{rules.text(_lead(words) + opening)} {listed} {rules.text(closing + words.end)}")


class Named:
    """A function's name, ``between`` and its arguments in JSON."""

    new_id = staticmethod(long_id)

    def __init__(self, words: CallWords) -> None:
        self._words = words
        self.section = _section(words)

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """All calls of a section; where nothing begins a call there is but one."""
        words = self._words
        begin = words.begin.strip()
        yield from source.space()
        yield from source.expect(begin)
        while True:
            name, _ = yield from source.until(words.between.strip() or words.between)
            if not tools.knows(name.strip()):
                raise Malformed
            calls.begin(name.strip())
            yield from json_value(source, calls.arguments)
            yield from _end(source, words.over)
            yield from source.space()
            if not begin or (yield from source.accept(begin)) is None:
                break
        yield from _end(source, words.end)

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """As the template does."""
        words = self._words
        call = rules.one_of([self._call_rule(rules, tool) for tool in tools.tools])
        listed = rules.repeated(call, '""') if words.begin else call
        return rules.rule(f"{rules.text(_lead(words))} {listed} {rules.text(words.end)}")

    def _call_rule(self, rules: Rules, tool: Tool) -> str:
        words = self._words
        head = f"{words.begin}{tool.name}{words.between}"
        return rules.rule(f"{rules.text(head)} {rules.arguments(tool)} {rules.text(words.over)}")


def _tags(words: CallWords) -> Tags:
    strays = dict.fromkeys(it for it in (words.over, words.end) if it)
    return Tags(
        section=Section(words.start, tuple(strays)),
        call=words.begin,
        named=words.between,
        key=words.key,
        value=words.value,
        kinds=words.kinds,
        value_end=words.value_end,
        call_end=words.over,
        end=words.end,
        gap=words.gap,
        pad=words.pad,
    )


def _section(words: CallWords) -> Section:
    """Marks alone are never text: what else stands around calls may be a word of an answer."""
    around = (words.begin, words.between, words.over, words.end)
    return Section(words.start.strip(), tuple(mark for it in around for mark in MARKER.findall(it)))


def _lead(words: CallWords) -> str:
    """White space behind the start."""
    return words.start[len(words.start.rstrip()) :] if words.start.strip() else ""


def _end(source: Source, end: str) -> Steps[None]:
    """What ends calls, which a token that ends the answer may stand for."""
    yield from source.space()
    if end.strip():
        yield from source.accept(end.strip())
