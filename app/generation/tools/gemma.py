"""FunctionGemma and Gemma 4: ``call:name{key:value,...}`` with texts between marks of their own."""

from app.generation.tools.format import Calls, Section, long_id
from app.generation.tools.gemma_rules import GemmaWriter
from app.generation.tools.json_text import escaped
from app.generation.tools.rules import Rules, spelt
from app.generation.tools.source import Emit, Malformed, Source, Steps
from app.generation.tools.toolbox import Toolbox
from app.generation.tools.values import converted

ENDS = ",}]"


class Gemma:
    """``start`` and ``end`` stand around one call, ``quote`` around each text in it."""

    new_id = staticmethod(long_id)

    def __init__(self, start: str, end: str, quote: str) -> None:
        self.section = Section(start, (end, quote))
        self._end = end
        self._quote = quote

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """One call."""
        yield from source.space()
        yield from source.expect("call:")
        name, _ = yield from source.until("{")
        if not tools.knows(name.strip()):
            raise Malformed
        calls.begin(name.strip())
        yield from self._object(source, calls.arguments)
        yield from source.space()
        yield from source.expect(self._end)

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """One call; further ones have sections of their own."""
        calls = []
        for tool in tools.tools:
            arguments = GemmaWriter(rules, self._quote, tool).arguments()
            calls.append(rules.rule(f"{rules.text('call:' + tool.name)} {arguments} {rules.text(self._end)}"))
        return rules.one_of(calls)

    def _object(self, source: Source, emit: Emit) -> Steps[None]:
        """The rest of an object behind its brace."""
        emit("{")
        count = 0
        yield from source.space()
        while (yield from source.accept("}")) is None:
            if count:
                yield from source.expect(",")
                emit(", ")
            count += 1
            key, _ = yield from source.until(":")
            emit(f"{spelt(key.replace(self._quote, '').strip().strip(chr(34)))}: ")
            yield from self._value(source, emit)
            yield from source.space()
        emit("}")

    def _array(self, source: Source, emit: Emit) -> Steps[None]:
        """The rest of an array behind its bracket."""
        emit("[")
        count = 0
        yield from source.space()
        while (yield from source.accept("]")) is None:
            if count:
                yield from source.expect(",")
                emit(", ")
            count += 1
            yield from self._value(source, emit)
            yield from source.space()
        emit("]")

    def _value(self, source: Source, emit: Emit) -> Steps[None]:
        yield from source.space()
        opened = yield from source.accept(self._quote, "{", "[")
        if opened == "{":
            yield from self._object(source, emit)
        elif opened == "[":
            yield from self._array(source, emit)
        elif opened is not None:
            emit('"')
            yield from source.stream((self._quote,), lambda text: emit(escaped(text)))
            emit('"')
        else:
            emit(converted((yield from _bare(source)), set()))


def _bare(source: Source) -> Steps[str]:
    """A number or a word: up to what ends a value."""
    taken = ""
    while (yield from source.need(1)) not in ENDS:
        taken += source.take(1)
    return taken
