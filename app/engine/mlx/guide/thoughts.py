"""Where a row's thoughts begin and end, by its tokens. Pure."""

from __future__ import annotations

from app.engine.grammar import Thoughts


class ThoughtWatch:
    """Follows a row until its answer begins.

    A thought that the prompt did not open can be opened by the first token alone.
    """

    def __init__(self, thoughts: Thoughts) -> None:
        self._thoughts = thoughts
        self._taken: list[int] = []
        self._spent = 0
        self.thinking = thoughts.open
        """Whether the next token is a thought's."""
        self._may_open = bool(thoughts.start) and not thoughts.open

    @property
    def first(self) -> int | None:
        """The token that may open a thought now, beside what an answer may begin with."""
        return self._thoughts.start[0] if self._may_open and self._thoughts.budget != 0 else None

    def took(self, token: int) -> bool:
        """Whether ``token``, just drawn, belongs to the thoughts and their marks."""
        if self.thinking:
            self._spent += 1
            self._taken = [*self._taken, token][-len(self._thoughts.end) :]
            self.thinking = tuple(self._taken) != self._thoughts.end
            return True
        opens = self._may_open and token == self._thoughts.start[0]
        self._may_open = False
        self.thinking = opens
        self._spent = 1 - len(self._thoughts.start)  # what is left of the mark is not thought
        return opens

    def owed(self) -> tuple[int, ...]:
        """Tokens that must come now: the rest of the opening mark, or the closing one where the budget is spent."""
        if not self.thinking:
            return ()
        opening: tuple[int, ...] = ()
        if self._spent < 0:
            opening = self._thoughts.start[self._spent :]
        spent = self._thoughts.budget is not None and max(0, self._spent) >= self._thoughts.budget
        return opening + (self._thoughts.end if spent else ())
