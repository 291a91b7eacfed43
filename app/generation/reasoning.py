"""Thoughts: a pure machine that takes what a model thinks out of what it answers. Knows no tokens."""

from typing import Literal

from app.engine.text import Marks
from app.generation.marks import certain

State = Literal["opening", "thinking", "between", "answer"]


class ReasoningMachine:
    """Gives the same thoughts and the same answer however the text is split into pieces.

    A thought stands at the beginning, between the family's marks. Where the prompt has opened it (``open``) the
    opening mark may be missing. Marks and the white space around them are neither thought nor answer.
    """

    def __init__(self, marks: Marks, *, open: bool) -> None:  # noqa: A002  what it is
        self._marks = marks
        self._open = open
        self._state: State = "opening"
        self._held = ""
        self._read = 0
        self._began = False
        self.answer_at = 0
        """Characters before the answer; known once :attr:`answering`."""

    @property
    def thinking(self) -> bool:
        """Whether what comes next is a thought's, unless its end comes."""
        return self._state == "thinking" or (self._state == "opening" and self._open)

    @property
    def answering(self) -> bool:
        """Whether the answer has begun."""
        return self._state == "answer"

    def push(self, text: str) -> tuple[str, str]:
        """The thought and the answer that are now certain."""
        if self._state == "answer":
            return "", text
        self._held += text
        self._read += len(text)
        if self._state == "opening" and not self._opened():
            return "", ""
        thought = self._think() if self._state == "thinking" else ""
        if self._state == "between":
            self._held = self._held.lstrip()
            self._state = "answer" if self._held else "between"
        return thought, self._answer() if self._state == "answer" else ""

    def finish(self) -> tuple[str, str]:
        """What is held back, at the end of the stream."""
        held, self._held = self._held.rstrip(), ""
        if self._state == "thinking" or (self._state == "opening" and self._open):
            return held if self._began else held.lstrip(), ""
        if self._state == "opening":
            self._state = "answer"
            return "", held
        return "", ""

    def _opened(self) -> bool:
        """Decide whether a thought begins; False while that is open."""
        begun = self._held.lstrip()
        if begun.startswith(self._marks.start):
            self._held = begun[len(self._marks.start) :]
            self._state = "thinking"
        elif self._marks.start.startswith(begun):
            return False
        else:
            self._state = "thinking" if self._open else "answer"
        return True

    def _think(self) -> str:
        """The thought that is certain; white space is held until more of the thought follows."""
        before, found, after = self._held.partition(self._marks.end)
        if found:
            thought, self._held, self._state = before.rstrip(), after, "between"
        else:
            thought = self._held[: certain(self._held, (self._marks.end,))].rstrip()
            self._held = self._held[len(thought) :]
        if not self._began:
            thought = thought.lstrip()
            self._began = bool(thought)
        return thought

    def _answer(self) -> str:
        answer, self._held = self._held, ""
        self.answer_at = self._read - len(answer)
        return answer
