"""Text that comes in pieces, read as if it were all there.

A reader is a generator: where it needs more text than has come it yields, and goes on once there is more. What it
reads depends on the text alone, never on the pieces.
"""

from collections.abc import Callable, Generator, Sequence
from typing import TypeAlias, TypeVar

from app.generation.marks import certain, first

T = TypeVar("T")

Steps: TypeAlias = Generator[None, None, T]
Emit = Callable[[str], None]
SPACE = " \t\r\n"


class Malformed(Exception):
    """The text is not what the format says: not a call, or one that was cut off."""


class Ended(Malformed):
    """There will be no more text."""


class Source:
    """All that has come, and where the reader is. ``position`` counts characters from the beginning."""

    def __init__(self) -> None:
        self._text = ""
        self._base = 0
        self._at = 0
        self._closed = False

    @property
    def position(self) -> int:
        """The next character to be read."""
        return self._base + self._at

    @property
    def available(self) -> str:
        """What has come and is not read."""
        return self._text[self._at :]

    @property
    def closed(self) -> bool:
        """Whether nothing more comes."""
        return self._closed

    def feed(self, text: str) -> None:
        """Take more text."""
        self._text += text

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True

    def take(self, length: int) -> str:
        """Read ``length`` characters that have come."""
        taken = self._text[self._at : self._at + length]
        self._at += length
        return taken

    def rewind(self, position: int) -> None:
        """Read again from ``position``, which :meth:`forget` has not passed."""
        self._at = position - self._base

    def forget(self) -> None:
        """Let go of what was read."""
        self._base += self._at
        self._text = self._text[self._at :]
        self._at = 0

    def need(self, length: int) -> Steps[str]:
        """The next ``length`` characters, not read; raises :class:`Ended` if there are fewer."""
        while len(self._text) - self._at < length:
            if self._closed:
                raise Ended
            yield
        return self._text[self._at : self._at + length]

    def space(self) -> Steps[None]:
        """Read white space."""
        while True:
            rest = self.available
            stripped = rest.lstrip(SPACE)
            self.take(len(rest) - len(stripped))
            if stripped:
                return
            yield from self.need(1)

    def accept(self, *texts: str) -> Steps[str | None]:
        """Read the one of ``texts`` that comes next; None, and nothing read, if none does."""
        while True:
            rest = self.available
            found = [text for text in texts if rest.startswith(text)]
            open_ = [text for text in texts if len(text) > len(rest) and text.startswith(rest)]
            if found and (not open_ or self._closed):
                return self.take(len(max(found, key=len)))
            if not open_ or self._closed:
                return None
            yield

    def expect(self, text: str) -> Steps[None]:
        """Read exactly ``text``; raises :class:`Ended` where what has come may be its beginning."""
        if (yield from self.accept(text)) is None:
            raise Ended if self._closed and text.startswith(self.available) else Malformed

    def until(self, *marks: str) -> Steps[tuple[str, str]]:
        """The text before the first of ``marks``, and that mark, both read."""
        pieces: list[str] = []
        mark = yield from self.stream(marks, pieces.append)
        return "".join(pieces), mark

    def stream(self, marks: Sequence[str], emit: Emit) -> Steps[str]:
        """Hand on text as it becomes certain, up to the first of ``marks``, which is read and returned.

        At the end of the text the rest is handed on and :class:`Ended` raised.
        """
        while True:
            rest = self.available
            found = first(rest, marks)
            safe = certain(rest, marks)
            if found is not None and found[0] <= safe and not self._longer(rest[found[0] :], found[1], marks):
                self._hand_on(found[0], emit)
                return self.take(len(found[1]))
            self._hand_on(safe, emit)
            if self._closed:
                self._hand_on(len(self.available), emit)
                raise Ended
            yield

    def _longer(self, rest: str, mark: str, marks: Sequence[str]) -> bool:
        """Whether a longer mark may yet begin where ``mark`` stands."""
        return not self._closed and any(len(it) > len(mark) and it.startswith(rest) for it in marks)

    def _hand_on(self, length: int, emit: Emit) -> None:
        if length > 0:
            emit(self.take(length))
