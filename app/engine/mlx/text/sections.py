"""Conversations as token ids, turn by turn: what earlier requests have told already is not encoded again.

A tokenizer cuts a text at its special tokens before it does anything else, so what stands between two of them has the
ids that it has by itself. A conversation is cut before each of the marks that begin its turns, or end
them.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from threading import Lock

from app.engine.ids import Ids
from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.errors import InvalidRequest

KEPT = 4 << 20
"""Characters of sections whose ids are remembered: many long conversations."""

ROLES = ("user", "assistant", "user", "assistant", "user")
"""Of a conversation in which it is seen what begins a turn, or ends one."""


class SectionEncoder:
    """Of one model. Any thread."""

    def __init__(self, tokenizer: MLXTokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: OrderedDict[str, array[int]] = OrderedDict()
        self._held = 0
        self._lock = Lock()

    @cached_property
    def mark(self) -> str | None:
        """What a text is cut before; None: it is one section."""
        mark = mark_of(self._tokenizer)
        return mark if mark is None or _cuts(self._encode, mark) else None

    def ids(self, text: str, most: int) -> Ids | None:
        """Of all of ``text``; None where there are more than ``most``, as far as can be told without making them."""
        ids = array("I")
        for section in self._sections(text):
            known = self._find(section)
            if known is None:
                left = most - len(ids)
                if len(section) > left and self._tokenizer.count(section, left) > left:
                    return None
                known = array("I", self._encode(section))
                self._keep(section, known)
            ids += known
            if len(ids) > most:
                return None
        return memoryview(ids)

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, special_tokens=False)

    def _sections(self, text: str) -> list[str]:
        if self.mark is None:
            return [text]
        first, *others = text.split(self.mark)
        return [*([first] if first else []), *(self.mark + it for it in others)]

    def _find(self, section: str) -> array[int] | None:
        with self._lock:
            known = self._known.get(section)
            if known is not None:
                self._known.move_to_end(section)
            return known

    def _keep(self, section: str, ids: array[int]) -> None:
        with self._lock:
            if section not in self._known and len(section) <= KEPT:
                self._known[section] = ids
                self._held += len(section)
            while self._held > KEPT:
                self._held -= len(self._known.popitem(last=False)[0])


def mark_of(tokenizer: MLXTokenizer) -> str | None:
    """The token that most turns of a conversation have, if a text may be cut before it; None if there is none.

    It must be looked for before all else, take nothing that stands before it, and be part of no other such token that
    begins before it.
    """
    tokens = tokenizer.added
    if not tokens or any(token.single_word for token in tokens):  # what stands beside one matters
        return None
    try:
        conversation = tokenizer.render_chat([{"role": role, "content": "x"} for role in ROLES])
    except InvalidRequest:
        return None
    first = [token for token in tokens if not token.normalized]
    found = [it.content for it in first if not it.lstrip and conversation.count(it.content) > 1]
    marks = [mark for mark in found if not any(_overlaps(it.content, mark) for it in first)]
    return max(marks, key=lambda mark: (conversation.count(mark), -conversation.find(mark)), default=None)


def _overlaps(token: str, mark: str) -> bool:
    """Whether ``token`` may stand in a text so that ``mark`` begins within it."""
    return mark in token[1:] or any(token[1:].endswith(mark[:size]) for size in range(1, len(mark)))


def _cuts(encode: Callable[[str], list[int]], mark: str) -> bool:
    """Whether it does so indeed: a wrapper may do something else with special tokens."""
    sections = ["Who\n", f"{mark}user\n says  it", f"{mark}", f"{mark} x \n", f"{mark}\n\n end"]
    return encode("".join(sections)) == [token for section in sections for token in encode(section)]
