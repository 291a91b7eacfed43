"""What a call format is: how its calls are read, and the grammar that forces them."""

from collections.abc import Callable
from typing import Protocol
from uuid import uuid4

from msgspec import Struct

from app.generation.events import ToolCallArguments, ToolCallStarted
from app.generation.tools.rules import Rules
from app.generation.tools.source import Malformed, Source, Steps
from app.generation.tools.toolbox import Toolbox

CallEvent = ToolCallStarted | ToolCallArguments


class Calls:
    """Takes the calls that a reader finds and tells them as events of choice ``index``."""

    def __init__(self, index: int, new_id: Callable[[], str]) -> None:
        self.count = 0
        self.events: list[CallEvent] = []
        self._index = index
        self._new_id = new_id

    def begin(self, name: str, call_id: str | None = None) -> None:
        """A call of ``name`` begins; what the model says of its id is kept."""
        self.events.append(ToolCallStarted(self._index, self.count, call_id or self._new_id(), name))
        self.count += 1

    def arguments(self, text: str) -> None:
        """More of the arguments' JSON text."""
        if text:
            self.events.append(ToolCallArguments(self._index, self.count - 1, text))


class Section(Struct, frozen=True):
    """What stands around calls: ``start`` before a section of them. ``strays`` are its other marks, never text."""

    start: str
    strays: tuple[str, ...] = ()


class Format(Protocol):
    """A model family's way to write tool calls. Stateless."""

    section: Section

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """Read what follows the section's start, to its end.

        Raises :class:`app.generation.tools.source.Malformed` where the text is no call of this format.
        """

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """The name of a rule for what follows the section's start, to its end."""

    def new_id(self) -> str:
        """An id as the family's template takes it."""


class Framed:
    """``format``, if there is one, in answers that stand between marks: the ``frame`` is never text."""

    def __init__(self, format: Format | None, frame: tuple[str, ...]) -> None:  # noqa: A002  what it is
        self._format = format
        inner = Section("") if format is None else format.section
        self.section = Section(inner.start, (*inner.strays, *frame))
        self.new_id = long_id if format is None else format.new_id

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """As the format does; without one there is no call."""
        if self._format is None:
            raise Malformed
        yield from self._format.read(source, calls, tools)

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """As the format does."""
        return rules.part(False, tools.tools[0]) if self._format is None else self._format.write(rules, tools)


def long_id() -> str:
    """An id as OpenAI's look."""
    return f"call_{uuid4().hex[:24]}"


def short_id() -> str:
    """Nine letters and digits, which Mistral's templates insist on."""
    return uuid4().hex[:9]
