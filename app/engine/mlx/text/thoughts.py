"""How a chat template marks thoughts, by what it writes of an answer that has one, and by its own words.

No table can name every family's marks: what a template writes around a thought is what its model was trained to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Protocol

from app.engine.mlx.text.turns import Message
from app.errors import InvalidRequest

NAMES = ("reasoning_content", "thinking", "reasoning", "thought")
"""Members of a message from which templates read thoughts; ours is the first."""
SWITCHES = ("enable_thinking", "thinking", "enable_reasoning", "reasoning", "think")
"""Variables by which templates are told whether to think; ours is the first."""
QUESTION, THOUGHT, SAID = "probe of a question", "probe of a thought", "probe of an answer"

LONGEST = 60
"""Characters that may stand before an answer."""
WORDS = r"think(?:ing)?|thoughts?|reason(?:ing)?|analysis|reflection|scratch_?pad|cot|deliberation"
MARK = r"<[^<>\s]{1,40}>|\[[^\[\]\s]{1,40}\]|◁[^◁▷\s]{1,40}▷"
_MARK, _LAST = re.compile(MARK), re.compile(rf"(?:{MARK})\Z")
_PARTS = re.compile(r"(<\|?|\[|◁)([^|>\]▷]+)(\|?>|\]|▷)")
_OF_THOUGHTS = re.compile(rf"(?:\A|[^a-z])(?:{WORDS})(?:\Z|[^a-z])", re.IGNORECASE)
_OPENING = re.compile(
    rf"(?:<\|?|\[|◁)(?:(?:start|begin|open)(?:_of)?[_:-])?(?:\w+:)?(?:{WORDS})(?::\w+)?"
    r"(?:[_:-](?:start|begin|open))?(?:\|?>|\]|▷)",
    re.IGNORECASE,
)
_CLOSING = re.compile(rf"(<|\[|◁)/(\|?(?:\w+:)?(?:{WORDS})(?::\w+)?(?:\|?>|\]|▷))", re.IGNORECASE)
_ENDED = {"start": "end", "begin": "end", "open": "close"}


class Render(Protocol):
    """The template; raises :class:`app.errors.InvalidRequest` if it refuses."""

    def __call__(self, messages: list[Message], variables: Mapping[str, Any], *, asks: bool) -> str:
        """The text of ``messages``, with the beginning of an answer if it ``asks`` for one."""


class TemplateThoughts:
    """What is found out of a template when it is first asked for.

    ``source`` is its text, ``known`` are marks that a table has for its vocabulary.
    """

    def __init__(self, render: Render, source: str, known: tuple[str, str] | None) -> None:
        self._render = render
        self._source = source
        self._known = known

    @cached_property
    def marks(self) -> tuple[str, str] | None:
        """What stands around a thought: what is written before what is known, which goes before what is named."""
        known, (_, start, end) = self._known, self._written
        if start:
            return start, end
        if known is not None and (known[0] in self._source or known[1] in self._source):
            return known
        return named_thoughts(self._source, self._asked({})) or known

    @cached_property
    def frame(self) -> tuple[str, ...]:
        """What the model itself puts around an answer, beside the marks of thoughts: marks, perhaps with a role."""
        text, asking, (name, _, end) = self._rendered({}), self._asked({}), self._written
        if end:
            rest = self._rendered({name: THOUGHT}).partition(THOUGHT)[2].partition(end)[2]
        elif text.startswith(asking) and asking != self._asked({}, asks=False):
            rest = text[len(asking) :]
        else:
            return ()
        before, found, after = rest.partition(SAID)
        before = before.strip()
        for mark in self.marks or ():
            before = before.replace(mark, "").strip()
        if not found or len(before) > LONGEST or not _MARK.match(before) or not _LAST.search(before):
            return ()
        last, closing = _LAST.search(before), _MARK.match(after.lstrip())
        ended = closing is not None and last is not None and closing[0] in ends_of(last[0])
        return (before, *([closing[0]] if ended and closing is not None else []))

    def prepared(self, messages: list[Message]) -> list[Message]:
        """Thoughts of earlier answers by the name that the template reads."""
        name, ours = self._written[0], NAMES[0]
        return messages if name in {"", ours} else [{**it, name: it[ours]} if it.get(ours) else it for it in messages]

    def switched(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """Whether to think by the name that the template reads, where that is another."""
        wanted = variables.get(SWITCHES[0])
        return variables if wanted is None else {self._switch: wanted, **variables}

    @cached_property
    def _switch(self) -> str:
        """The variable that changes how an answer begins."""
        found = (it for it in SWITCHES if it in self._source and self._asked({it: True}) != self._asked({it: False}))
        return next(found, SWITCHES[0])

    @cached_property
    def _written(self) -> tuple[str, str, str]:
        """The member of a message that is read, and the marks around it; empty where there are none of its own."""
        plain = self._rendered({})
        for name in NAMES:
            before, found, after = self._rendered({name: THOUGHT}).partition(THOUGHT)
            if not found:
                continue
            before, after = before.rstrip(), after.lstrip()
            if self._known is not None and before.endswith(self._known[0]) and after.startswith(self._known[1]):
                return name, *self._known
            start, end = _LAST.search(before), _MARK.match(after)
            own = start is not None and (_OF_THOUGHTS.search(start[0]) is not None or start[0] not in plain)
            return (name, start[0], end[0]) if own and start is not None and end is not None else (name, "", "")
        return "", "", ""

    def _asked(self, variables: Mapping[str, Any], *, asks: bool = True) -> str:
        try:
            return self._render([{"role": "user", "content": QUESTION}], variables, asks=asks)
        except InvalidRequest:
            return ""

    def _rendered(self, more: Message) -> str:
        said = {"role": "assistant", "content": SAID, **more}
        try:
            return self._render([{"role": "user", "content": QUESTION}, said], {}, asks=False)
        except InvalidRequest:
            return ""


def named_thoughts(text: str, prompt: str = "") -> tuple[str, str] | None:
    """Marks of thoughts that stand in ``text``; first those that ``prompt``, which asks for an answer, ends with."""
    pairs = list(_pairs(text))
    opened = [pair for pair in pairs if prompt.rstrip().endswith(pair)]
    return next(iter([*opened, *pairs]), None)


def ends_of(mark: str) -> Iterator[str]:
    """What may end what a mark begins."""
    parts = _PARTS.fullmatch(mark)
    if parts is None:
        return
    a, name, z = parts.groups()
    yield f"{a}/{name}{z}"
    yield f"{a[0]}/{a[1:]}{name}{z}"
    ended = re.sub("|".join(_ENDED), lambda it: _like(it[0], _ENDED[it[0].lower()]), name, flags=re.IGNORECASE)
    if ended != name:
        yield f"{a}{ended}{z}"
    for form in ("end_{}", "end_of_{}", "{}_end"):
        yield a + (form.upper() if name.isupper() else form).format(name) + z


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Marks of thoughts with those that end them; last those of which only the end is named."""
    for found in _OPENING.finditer(text):
        yield from ((found[0], end) for end in ends_of(found[0]) if end in text)
    for found in _CLOSING.finditer(text):
        yield found[1] + found[2], found[0]


def _like(text: str, other: str) -> str:
    """``other`` in capitals where ``text`` is."""
    return other.upper() if text.isupper() else other
