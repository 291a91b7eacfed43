"""The output items of a response while they grow: what each event tells of them, and what they are in the end. Pure.

Events are not numbered here; see :mod:`app.api.write.render_response`.
"""

import re
from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec import UNSET

from app.api.read.response_tools import INPUT, Called
from app.api.write.logprobs import label, score
from app.generation.events import TokenLogprob
from app.schemas import response_events as wire
from app.schemas.response_items import (
    CustomCallItem,
    FunctionCallItem,
    ItemStatus,
    OutputItem,
    OutputMessage,
    OutputText,
    ReasoningItem,
    ReasoningText,
    SummaryText,
    TextLogprob,
    TopLogprob,
)

HEAD = re.compile(rf'\s*\{{\s*"{INPUT}"\s*:\s*"')
CERTAIN = re.compile(
    r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*+"
)
"""The characters of a JSON string, as far as they are whole and up to its end."""

Seal = Callable[[str], str]
Events = list[wire.ResponseEvent]


class Growing(Protocol):
    """An item that is not whole yet, the ``index``-th of its response."""

    def begin(self) -> Events:
        """The item appears."""

    def end(self) -> Events:
        """There will be no more of it."""

    def item(self, status: ItemStatus) -> OutputItem:
        """The item as it stands."""


class GrowingMessage:
    """Text of the answer."""

    def __init__(self, id: str, index: int) -> None:  # noqa: A002  what it is
        self._id = id
        self._index = index
        self._text: list[str] = []
        self._logprobs: list[TextLogprob] = []

    def begin(self) -> Events:
        """See :class:`Growing`."""
        empty = OutputMessage(id=self._id, status="in_progress", content=[])
        return [
            wire.ItemAddedEvent(output_index=self._index, item=empty),
            wire.PartAddedEvent(item_id=self._id, output_index=self._index, part=OutputText("")),
        ]

    def more(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> Events:
        """More text, and the log probabilities of the tokens that it completes."""
        scores = [_text_logprob(it) for it in logprobs]
        self._text.append(text)
        self._logprobs += scores
        return [wire.TextDeltaEvent(item_id=self._id, output_index=self._index, delta=text, logprobs=scores)]

    def end(self) -> Events:
        """See :class:`Growing`."""
        part = self._part()
        return [
            wire.TextDoneEvent(item_id=self._id, output_index=self._index, text=part.text, logprobs=part.logprobs),
            wire.PartDoneEvent(item_id=self._id, output_index=self._index, part=part),
        ]

    def item(self, status: ItemStatus) -> OutputMessage:
        """See :class:`Growing`."""
        return OutputMessage(id=self._id, status=status, content=[self._part()])

    def _part(self) -> OutputText:
        return OutputText("".join(self._text), logprobs=self._logprobs)


class GrowingReasoning:
    """A thought; as a summary of itself too where ``summed_up``, and signed by ``seal`` in the end."""

    def __init__(self, id: str, index: int, *, summed_up: bool, seal: Seal | None) -> None:  # noqa: A002
        self._id = id
        self._index = index
        self._summed_up = summed_up
        self._seal = seal
        self._text: list[str] = []

    def begin(self) -> Events:
        """See :class:`Growing`."""
        empty = ReasoningItem(id=self._id, status="in_progress", summary=[], content=[])
        events: Events = [
            wire.ItemAddedEvent(output_index=self._index, item=empty),
            wire.PartAddedEvent(item_id=self._id, output_index=self._index, part=ReasoningText("")),
        ]
        if self._summed_up:
            events.append(wire.SummaryPartAddedEvent(item_id=self._id, output_index=self._index, part=SummaryText("")))
        return events

    def more(self, text: str) -> Events:
        """More of the thought."""
        self._text.append(text)
        events: Events = [wire.ReasoningDeltaEvent(item_id=self._id, output_index=self._index, delta=text)]
        if self._summed_up:
            events.append(wire.SummaryDeltaEvent(item_id=self._id, output_index=self._index, delta=text))
        return events

    def end(self) -> Events:
        """See :class:`Growing`."""
        text = "".join(self._text)
        events: Events = [
            wire.ReasoningDoneEvent(item_id=self._id, output_index=self._index, text=text),
            wire.PartDoneEvent(item_id=self._id, output_index=self._index, part=ReasoningText(text)),
        ]
        if self._summed_up:
            events += [
                wire.SummaryDoneEvent(item_id=self._id, output_index=self._index, text=text),
                wire.SummaryPartDoneEvent(item_id=self._id, output_index=self._index, part=SummaryText(text)),
            ]
        return events

    def item(self, status: ItemStatus) -> ReasoningItem:
        """See :class:`Growing`."""
        text = "".join(self._text)
        return ReasoningItem(
            id=self._id,
            status=status,
            summary=[SummaryText(text)] if self._summed_up else [],
            content=[ReasoningText(text)],
            encrypted_content=UNSET if self._seal is None or status == "in_progress" else self._seal(text),
        )


class GrowingCall:
    """A call of a function."""

    def __init__(self, id: str, index: int, call_id: str, called: Called) -> None:  # noqa: A002
        self._id = id
        self._index = index
        self._call_id = call_id
        self._called = called
        self._arguments: list[str] = []

    def begin(self) -> Events:
        """See :class:`Growing`."""
        return [wire.ItemAddedEvent(output_index=self._index, item=self.item("in_progress"))]

    def more(self, arguments: str) -> Events:
        """More of the arguments."""
        self._arguments.append(arguments)
        return [wire.ArgumentsDeltaEvent(item_id=self._id, output_index=self._index, delta=arguments)]

    def end(self) -> Events:
        """See :class:`Growing`."""
        arguments, name = "".join(self._arguments), self._called.name
        return [wire.ArgumentsDoneEvent(item_id=self._id, output_index=self._index, name=name, arguments=arguments)]

    def item(self, status: ItemStatus) -> FunctionCallItem:
        """See :class:`Growing`."""
        return FunctionCallItem(
            id=self._id,
            status=status,
            call_id=self._call_id,
            name=self._called.name,
            namespace=UNSET if self._called.namespace is None else self._called.namespace,
            arguments="".join(self._arguments),
        )


class GrowingCustomCall:
    """A call of a custom tool: its text is taken out of the arguments, ``{"input": "..."}``, as it comes.

    Arguments that are anything else are told as they are, in the end.
    """

    def __init__(self, id: str, index: int, call_id: str, called: Called) -> None:  # noqa: A002
        self._id = id
        self._index = index
        self._call_id = call_id
        self._called = called
        self._text: list[str] = []
        self._held = ""
        self._inside = False

    def begin(self) -> Events:
        """See :class:`Growing`."""
        return [wire.ItemAddedEvent(output_index=self._index, item=self.item("in_progress"))]

    def more(self, arguments: str) -> Events:
        """More of the arguments."""
        self._held += arguments
        head = None if self._inside else HEAD.match(self._held)
        if head is not None:
            self._held, self._inside = self._held[head.end() :], True
        if not self._inside:
            return []
        found = CERTAIN.match(self._held)
        whole = "" if found is None else found.group()
        self._held = self._held[len(whole) :]
        return self._tell(msgspec.json.decode(f'"{whole}"', type=str))

    def end(self) -> Events:
        """See :class:`Growing`."""
        last = [] if self._inside else self._tell(self._held)
        done = wire.CustomInputDoneEvent(item_id=self._id, output_index=self._index, input="".join(self._text))
        return [*last, done]

    def item(self, status: ItemStatus) -> CustomCallItem:
        """See :class:`Growing`."""
        return CustomCallItem(
            id=self._id,
            status=status,
            call_id=self._call_id,
            name=self._called.name,
            namespace=UNSET if self._called.namespace is None else self._called.namespace,
            input="".join(self._text),
        )

    def _tell(self, text: str) -> Events:
        if not text:
            return []
        self._text.append(text)
        return [wire.CustomInputDeltaEvent(item_id=self._id, output_index=self._index, delta=text)]


def _text_logprob(token: TokenLogprob) -> TextLogprob:
    top = [TopLogprob(label(it), score(it), list(it.bytes)) for it in token.top]
    return TextLogprob(label(token), score(token), list(token.bytes), top)
