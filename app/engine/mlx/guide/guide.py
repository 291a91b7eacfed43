"""What one row may say next: its thoughts, then its grammar."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from llguidance import LLMatcher

from app.engine.base import Sequence
from app.engine.grammar import Thoughts
from app.engine.mlx.guide.compiler import GrammarCompiler, Mask, consume, fill
from app.errors import EngineFailed

EVERYTHING = -1
"""All bits of a word."""


class Guide:
    """Follows one row. MLX thread only. ``compiled`` is its grammar, of which it takes copies.

    Each token is told by :meth:`advance` before the next one's :meth:`mask` is asked for. Where the grammar gives up,
    ``failure`` is set and the row is free until somebody ends it.
    """

    def __init__(
        self,
        request: Sequence,
        compiler: GrammarCompiler,
        token_bytes: Callable[[int], bytes],
        compiled: LLMatcher | None,
    ) -> None:
        grammar = request.grammar
        self.failure: EngineFailed | None = None
        self.complete = False
        """Whether the end of a complete answer was drawn."""
        self._compiler = compiler
        self._grammar = grammar
        self._ends = request.stop_ids | compiler.eos_ids
        self._room = compiler.room()
        self._trigger = _TriggerWatch(grammar.trigger, token_bytes) if grammar is not None and grammar.trigger else None
        self._compiled = compiled
        self._matcher = compiled.deep_copy() if compiled is not None and grammar and not grammar.trigger else None
        self._thoughts = None if request.thoughts is None else _ThoughtWatch(request.thoughts)
        self._forced = deque(() if self._thoughts is None else self._thoughts.forced())

    def mask(self) -> Mask | None:
        """One bit per token that may come next, good until the next call; None if all may."""
        if self.failure is not None or self.complete:
            return None
        if self._forced:
            return self._filled(0, allowed=self._forced[0])
        if self._thoughts is not None and self._thoughts.thinking:
            return None if self._matcher is None else self._endless()
        return None if self._matcher is None else self._next(self._matcher)

    def advance(self, token: int) -> None:
        """Take the token that was drawn."""
        if self._forced:
            self._forced.popleft()
        if self._thoughts is not None and self._thoughts.took(token):
            if not self._forced:
                self._forced.extend(self._thoughts.forced())
        elif self._matcher is not None:
            self._follow(self._matcher, token)
        elif self._trigger is not None and self._compiled is not None:
            rest = self._trigger.fired(token)
            if rest is not None:
                self._begin(self._compiled.deep_copy(), rest)

    def _next(self, matcher: LLMatcher) -> Mask | None:
        try:
            fill(matcher, self._room)
        except EngineFailed as failure:
            self.failure = failure
            return None
        if self._thoughts is not None and self._thoughts.first is not None:
            _set(self._room, self._thoughts.first)
        return self._room

    def _follow(self, matcher: LLMatcher, token: int) -> None:
        if token in self._compiler.eos_ids and matcher.is_accepting():
            self.complete = True
            return
        try:
            consume(matcher, token)
        except EngineFailed as failure:
            self.failure = failure
            return
        if matcher.is_stopped() and self._trigger is not None and self._grammar is not None and not self._grammar.once:
            self._matcher = None

    def _begin(self, matcher: LLMatcher, rest: bytes) -> None:
        """Hold the row from here on.

        ``rest`` came with the trigger's last token; where it begins no word of the grammar, all stays free text.
        """
        tokens = self._compiler.spell(rest)
        if matcher.try_consume_tokens(tokens) == len(tokens):
            self._matcher = matcher

    def _endless(self) -> Mask:
        """Inside a thought all may come but an end: the answer is still to come."""
        mask = self._filled(EVERYTHING)
        for token in self._ends:
            if token >> 5 < len(mask):
                mask.view("uint32")[token >> 5] &= ~(1 << (token & 31)) & 0xFFFFFFFF
        return mask

    def _filled(self, word: int, *, allowed: int | None = None) -> Mask:
        self._room.fill(word)
        if allowed is not None:
            _set(self._room, allowed)
        return self._room


def _set(mask: Mask, token: int) -> None:
    mask.view("uint32")[token >> 5] |= 1 << (token & 31)


class _ThoughtWatch:
    """Follows a row, by its tokens, until its answer begins. Pure.

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

    def forced(self) -> tuple[int, ...]:
        """Tokens that must come now: the rest of the opening mark, or the closing one where the budget is spent."""
        if not self.thinking:
            return ()
        opening: tuple[int, ...] = ()
        if self._spent < 0:
            opening = self._thoughts.start[self._spent :]
        spent = self._thoughts.budget is not None and max(0, self._spent) >= self._thoughts.budget
        return opening + (self._thoughts.end if spent else ())


class _TriggerWatch:
    """Looks for ``trigger`` in the bytes of what a row says; ``token_bytes`` spells its tokens. Pure."""

    def __init__(self, trigger: str, token_bytes: Callable[[int], bytes]) -> None:
        self._trigger = trigger.encode()
        self._token_bytes = token_bytes
        self._tail = b""

    def fired(self, token: int) -> bytes | None:
        """What the token says after the trigger, if the trigger ends in it; None if it does not."""
        text = self._tail + self._token_bytes(token)
        before, found, rest = text.partition(self._trigger)
        if found:
            self._tail = b""
            return rest
        self._tail = before[max(0, len(before) - len(self._trigger) + 1) :]
        return None
