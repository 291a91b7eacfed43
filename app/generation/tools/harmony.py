"""gpt-oss: messages on channels, thoughts, answers and calls alike (OpenAI's harmony format).

An answer continues ``<|start|>assistant``. Each message has a header that ends with ``<|message|>``: its channel
(``<|channel|>analysis``, ``final`` or ``commentary``) and, for a call, its recipient (``to=functions.f``) before or
behind that. Source: https://cookbook.openai.com/articles/openai-harmony
"""

import re

from app.generation.tools.format import Calls, Section, long_id
from app.generation.tools.machine import Content, Machine, Thought
from app.generation.tools.rules import Rules
from app.generation.tools.source import SPACE, Ended, Malformed, Source, Steps
from app.generation.tools.toolbox import Tool, Toolbox

NAME = "harmony"
START, CHANNEL, CONSTRAIN, MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
ENDS = ("<|end|>", "<|return|>", "<|call|>", START)
HEADERS = (CHANNEL, CONSTRAIN, MESSAGE, "to=")
"""What a header may begin with; anything else is text without one."""
RECIPIENT = re.compile(r"to=(?:functions\.)?(?P<name>[A-Za-z0-9_.-]+)")
ON_CHANNEL = re.compile(r"<\|channel\|>\s*(?P<name>\w+)")


class Harmony:
    """The call format as others see it: each call is a message of its own, and the last of its answer."""

    section = Section("", (*ENDS, CHANNEL, CONSTRAIN, MESSAGE))
    new_id = staticmethod(long_id)

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:  # noqa: ARG002  as other formats
        """Calls are read with all else by :class:`Channels`."""
        yield from source.need(1)
        raise Malformed

    def write(self, rules: Rules, tools: Toolbox) -> str:
        """One call, with its header."""
        return rules.one_of([_call_rule(rules, tool) for tool in tools.tools])


class Channels(Machine):
    """Thoughts, content and calls out of an answer: a pure machine over its text. Knows no tokens.

    ``prompt`` is what the answer continues: where that ends inside a message, the answer goes on with it.
    """

    def __init__(self, tools: Toolbox, index: int, prompt: str = "") -> None:
        super().__init__(tools, Calls(index, long_id))
        self._opened = opened(prompt)
        self._thought = False
        self._thoughts = 0

    @property
    def thinking(self) -> bool:
        """Whether what comes next is a thought's, unless its end comes."""
        return self._thought

    def _run(self) -> Steps[None]:
        header, started = self._opened, False
        try:
            while True:
                header_read = (yield from self._header(started=started)) if header is None else header
                mark = yield from self._body(header_read)
                header, started = None, mark == START
        except Ended:
            return

    def _header(self, *, started: bool) -> Steps[str]:
        """A message's header; empty where text stands without one. What is cut off within it is dropped."""
        if not started:
            yield from self._source.space()
        if started or (yield from self._source.accept(START)) is not None:
            header, _ = yield from self._source.until(MESSAGE)
            return header
        ahead = self._source.available
        while any(len(ahead) < len(mark) and mark.startswith(ahead) for mark in HEADERS):
            ahead = yield from self._source.need(len(ahead) + 1)
        if not ahead.startswith(HEADERS):
            return ""
        header, _ = yield from self._source.until(MESSAGE)
        return header

    def _body(self, header: str) -> Steps[str]:
        """What the message says; the mark behind it."""
        recipient, channel = RECIPIENT.search(header), ON_CHANNEL.search(header)
        if recipient is not None and self._tools.knows(recipient["name"]):
            mark = yield from self._call(recipient["name"])
        elif channel is not None and channel["name"] == "analysis":
            self._thought = True
            if self._thoughts:
                self._pieces.append(Thought("\n"))
            self._thoughts += 1
            try:
                mark = yield from self._source.stream(ENDS, lambda text: self._pieces.append(Thought(text)))
            finally:
                self._thought = False
        else:
            mark = yield from self._source.stream(ENDS, self._content)
        self._source.forget()
        return mark

    def _call(self, name: str) -> Steps[str]:
        said = ""

        def arguments(text: str) -> None:
            nonlocal said
            more = text if said else text.lstrip(SPACE)
            said += more
            self._calls.arguments(more)
            self._tell()

        self._calls.begin(name)
        self._tell()
        mark = ""
        try:
            mark = yield from self._source.stream(ENDS, arguments)
        finally:
            if not said and (mark or (self._source.closed and not self._cut)):
                arguments("{}")
        return mark

    def _content(self, text: str) -> None:
        self._pieces.append(Content(text, self._source.position - len(text)))


def opened(prompt: str) -> str | None:
    """The header of the message that ``prompt`` ends in; None if it ends before one."""
    header, begun, _ = prompt.rpartition(START)[2].partition(MESSAGE)
    return header if begun else None


def _call_rule(rules: Rules, tool: Tool) -> str:
    """Both orders in which models write a header."""
    first = f" to=functions.{tool.name}{CHANNEL}commentary"
    last = f"{CHANNEL}commentary to=functions.{tool.name}"
    kind = f'(" " ({rules.text(CONSTRAIN)})? "json")?'
    head = rules.rule(f"({rules.text(first)} | {rules.text(last)}) {kind} {rules.text(MESSAGE)}")
    return rules.rule(f"{head} {rules.arguments(tool)}")
