"""Tool calls out of an answer: a pure machine over its text. Knows no tokens."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from msgspec import Struct

from app.generation.events import FinishReason
from app.generation.tools.format import CallEvent, Calls, Format
from app.generation.tools.source import SPACE, Ended, Malformed, Source, Steps
from app.generation.tools.toolbox import Toolbox


class Content(Struct, frozen=True):
    """Text that is not part of a call; it begins ``at`` characters into the answer."""

    text: str
    at: int


class Thought(Struct, frozen=True):
    """Text that the model only thinks."""

    text: str


Piece = Content | Thought | CallEvent


class Machine(ABC):
    """What reads an answer step by step: each step waits for more text, whatever pieces it comes in."""

    def __init__(self, tools: Toolbox, calls: Calls) -> None:
        self._tools = tools
        self._source = Source()
        self._calls = calls
        self._pieces: list[Piece] = []
        self._steps = self._run()
        self._over = self._cut = False

    @abstractmethod
    def _run(self) -> Steps[None]:
        """All steps of one answer."""

    @property
    def called(self) -> bool:
        """Whether a call has begun."""
        return self._calls.count > 0

    @property
    def thinking(self) -> bool:
        """Whether what comes next is a thought's, unless its end comes; never, where those are taken out before."""
        return False

    def push(self, text: str) -> list[Piece]:
        """The pieces that are now certain."""
        self._source.feed(text)
        return self._advance()

    def finish(self, reason: FinishReason | None = None) -> list[Piece]:
        """What is held back, at the end of the stream; the beginning of a call that ``length`` cut off is dropped."""
        self._cut = reason == "length"
        self._source.close()
        return self._advance()

    def _advance(self) -> list[Piece]:
        if not self._over:
            try:
                next(self._steps)
            except StopIteration:
                self._over = True
        self._tell()
        pieces, self._pieces = self._pieces, []
        return pieces

    def _tell(self) -> None:
        self._pieces += self._calls.events
        self._calls.events = []


class ToolMachine(Machine):
    """Gives the same pieces, but for where they are cut, however the text is split.

    What looks like a call and is none is content, without the marks around it. White space next to calls is dropped.
    """

    def __init__(self, format: Format, tools: Toolbox, index: int, new_id: Callable[[], str] | None = None) -> None:  # noqa: A002
        super().__init__(tools, Calls(index, format.new_id if new_id is None else new_id))
        self._format = format
        self._space = ""
        self._space_at = 0
        self._after_call = False

    def _run(self) -> Steps[None]:
        if not self._format.section.start:
            yield from self._attempt()
        while True:
            try:
                begins = yield from self._content()
            except Ended:
                return
            if begins:
                yield from self._attempt()

    def _content(self) -> Steps[bool]:
        """Hand on text up to a mark; whether it begins a section."""
        section = self._format.section
        marks = tuple(mark for mark in (section.start, *section.strays) if mark)
        try:
            mark = yield from self._source.stream(marks, self._text)
        except Ended:
            self._release_space()
            raise
        if mark == section.start:
            return True
        self._release_space()
        return False

    def _attempt(self) -> Steps[None]:
        """Read a section; what is no call is read again as text."""
        self._source.forget()
        before = self._source.position
        count = self._calls.count
        try:
            yield from self._format.read(self._source, self._calls, self._tools)
        except Malformed as fault:
            begun = self._calls.count > count or self._format.section.start
            if isinstance(fault, Ended) and self._cut and begun:
                self._source.take(len(self._source.available))  # a part of a mark
                return
            if self._calls.count == count:
                self._release_space()
                self._source.rewind(before)
                return
        self._space = ""
        self._after_call = True
        self._tell()

    def _text(self, text: str) -> None:
        """Content, of which white space waits for what follows it."""
        held = self._space + text
        at = self._source.position - len(held)
        if self._after_call:
            stripped = held.lstrip(SPACE)
            at += len(held) - len(stripped)
            held = stripped
            self._after_call = not held
        kept = held.rstrip(SPACE)
        self._space = held[len(kept) :]
        self._space_at = at + len(kept)
        if kept:
            self._pieces.append(Content(kept, at))
        self._source.forget()

    def _release_space(self) -> None:
        """White space that no call follows is content, unless calls are all there is."""
        if self._space and not self.called:
            self._pieces.append(Content(self._space, self._space_at))
        self._space = ""
