"""The items of a response request as the messages of a conversation.

What belongs to one turn of the assistant stands in several items: thoughts, text and calls that follow each other
become one message. Everything else stays where it is.
"""

from typing import assert_never

import msgspec
from msgspec import Struct

from app.api.read.body import invalid
from app.api.read.response_tools import INPUT, flat
from app.api.seal import Seal
from app.errors import InvalidRequest
from app.schemas import response_items as wire
from app.schemas.messages import (
    AssistantMessage,
    Content,
    DeveloperMessage,
    FunctionCall,
    Message,
    RefusalPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from app.schemas.responses import OpenItem

KNOWN: dict[str, type[wire.InputItem]] = {
    "message": wire.InputMessage,
    "reasoning": wire.InputReasoning,
    "function_call": wire.InputFunctionCall,
    "custom_tool_call": wire.InputCustomCall,
    "function_call_output": wire.InputOutput,
    "custom_tool_call_output": wire.InputOutput,
}
SKIPPED = frozenset(
    {
        "file_search_call", "image_generation_call", "mcp_approval_request", "mcp_approval_response", "mcp_list_tools",
        "tool_search_call", "tool_search_output", "web_search_call",
    }
)  # fmt: skip
"""Traces of tools that a service has run: what came of them stands in the messages after them."""
KINDS = {wire.InputImage: "Images", wire.InputFile: "Files", wire.ItemAudio: "Audio"}


class Placed(Struct, frozen=True):
    """An item and the request field that it came in."""

    item: OpenItem
    param: str


class Said(Struct, frozen=True):
    """A conversation; ``skipped`` are the fields that it does without."""

    messages: tuple[Message, ...]
    skipped: tuple[str, ...] = ()


def said(items: list[Placed], seal: Seal) -> Said:
    """The conversation that the items make. Raises :class:`InvalidRequest` that names an item that cannot be read."""
    turns, skipped = _Turns(seal), []
    for placed in items:
        kind = kind_of(placed.item)
        if kind in SKIPPED:
            skipped.append(f"{placed.param} ({kind})")
        else:
            turns.add(_read(placed, kind), placed.param)
    return Said(tuple(turns.messages), (*skipped, *turns.skipped))


def kind_of(item: OpenItem) -> str:
    """The item's type, which messages may leave out."""
    kind = item.get("type")
    return "message" if kind is None and "role" in item else str(kind)


def _read(placed: Placed, kind: str) -> wire.InputItem:
    if kind not in KNOWN:
        raise InvalidRequest(
            f"Items of type '{kind[:64]}' are not understood: send messages, calls of functions and their outputs.",
            param=f"{placed.param}.type",
        )
    try:
        return msgspec.convert(placed.item, KNOWN[kind])
    except msgspec.ValidationError as error:
        raise invalid(str(error), placed.param) from None


class _Turns:
    """Messages so far. Thoughts wait for the turn that they belong to."""

    def __init__(self, seal: Seal) -> None:
        self.messages: list[Message] = []
        self.skipped: list[str] = []
        self._seal = seal
        self._called: set[str] = set()
        self._thoughts: list[str] = []
        self._turn: AssistantMessage | None = None

    def add(self, item: wire.InputItem, param: str) -> None:
        """The next item."""
        match item:
            case wire.InputMessage(role="assistant"):
                self._answer(_content(item.content, f"{param}.content"))
            case wire.InputMessage():
                self._end()
                self.messages.append(_message(item, f"{param}.content"))
            case wire.InputReasoning():
                self._think(item, param)
            case wire.InputFunctionCall():
                self._call(item.call_id, flat(item.name, item.namespace), item.arguments)
            case wire.InputCustomCall():
                arguments = msgspec.json.encode({INPUT: item.input}).decode()
                self._call(item.call_id, flat(item.name, item.namespace), arguments)
            case wire.InputOutput():
                self._end()
                self.messages.append(self._result(item, param))
            case _:
                assert_never(item)

    def _answer(self, content: Content) -> None:
        if self._turn is None or self._turn.content is not None or self._turn.tool_calls or self._thoughts:
            self._begin()
        if self._turn is not None:
            self._turn.content = content

    def _call(self, call_id: str, name: str, arguments: str) -> None:
        self._called.add(call_id)
        if self._turn is None or self._thoughts:
            self._begin()
        if self._turn is not None:
            call = ToolCall(call_id, FunctionCall(name, arguments))
            self._turn.tool_calls = [*(self._turn.tool_calls or []), call]

    def _result(self, item: wire.InputOutput, param: str) -> ToolMessage:
        content = _content(item.output, f"{param}.output")
        if item.call_id not in self._called:
            raise InvalidRequest(
                f"{param} is the output of a call '{item.call_id[:64]}' that no item before it has made. Send that "
                "item too, or previous_response_id, or leave the output out.",
                param=f"{param}.call_id",
            )
        return ToolMessage(content, item.call_id)

    def _think(self, item: wire.InputReasoning, param: str) -> None:
        sealed = item.encrypted_content
        shown = [it.text for it in item.content or []] or [it.text for it in item.summary or []]
        opened = self._seal.read(sealed) if sealed is not None and not item.content else None
        if opened is not None:
            shown = [opened]
        elif not shown and sealed is not None:
            self.skipped.append(f"{param}.encrypted_content")
        self._thoughts += [text for text in shown if text]

    def _begin(self) -> None:
        """A turn of the assistant, with the thoughts that came before it."""
        thoughts, self._thoughts = "\n\n".join(self._thoughts), []
        self._turn = AssistantMessage(reasoning_content=thoughts or None)
        self.messages.append(self._turn)

    def _end(self) -> None:
        self._turn = None
        self._thoughts = []


def _message(item: wire.InputMessage, param: str) -> Message:
    content = _content(item.content, param)
    match item.role:
        case "system":
            return SystemMessage(content)
        case "developer":
            return DeveloperMessage(content)
        case _:
            return UserMessage(content)


def _content(content: wire.Content, param: str) -> Content:
    return content if isinstance(content, str) else [_part(part, f"{param}.{at}") for at, part in enumerate(content)]


def _part(part: wire.Part, param: str) -> TextPart | RefusalPart:
    match part:
        case wire.InputText(text=text) | wire.PlainText(text=text) | wire.SaidText(text=text):
            return TextPart(text)
        case wire.SaidRefusal(refusal=refusal):
            return RefusalPart(refusal)
        case _:
            raise InvalidRequest(
                f"{KINDS[type(part)]} cannot be read: this is a text model. Leave the part out.", param=param
            )
