"""How a chat template takes functions and their calls, and conversations written so that it takes them.

Some templates want arguments as objects, others as JSON text (DeepSeek); some take one call a message (Llama 3);
Mistral's want ids of nine letters and digits; some show no calls at all (SmolLM3).
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, Literal

from msgspec import Struct, structs

from app.engine.mlx.text.turns import Message
from app.engine.text import PROBES
from app.errors import InvalidRequest

SHORT = re.compile(r"[A-Za-z0-9]{9}")
SHORT_ID = "probe0001"
LONG_ID = "call_0123456789abcdef01234567"
PROBE = "probe_for_tools"
PARAMETERS = {"type": "object", "properties": {"it": {"type": "string", "description": "What."}}, "required": ["it"]}
TOOL = {"type": "function", "function": {"name": PROBE, "description": PROBE, "parameters": PARAMETERS}}
"""A function like any other: templates read what its schema says."""
BARE_TOOL = {"type": "function", "function": {"name": PROBE, "parameters": {"type": "object"}}}
"""One of which little is said."""
TOOL_VARIABLES = ("xml_tools",)
"""Names by which templates read tools that do not read ``tools`` (SmolLM3)."""
QUESTION = ({"role": "user", "content": "?"},)
PYTHON = "{'it'"
"""How objects begin that a template writes as Python does, which is no JSON."""


class CallTurns(Struct, frozen=True):
    """``calls`` a message; whether arguments are ``text`` and ids ``short``.

    A message of calls whose content is empty is told without content where that is taken (``bare``), and one with
    content ``apart`` from its calls where both together are not.
    """

    calls: Literal["many", "one", "none"] = "many"
    text: bool = False
    short: bool = False
    bare: bool = False
    apart: bool = False


def call_turns_of(render: Callable[[list[Message]], str]) -> CallTurns:
    """Found by trying: the template takes what it neither refuses nor loses."""

    def takes(turns: CallTurns, *ids: str, said: str = "") -> bool:
        try:
            text = render(called(list(_conversation(said, *ids)), turns))
        except InvalidRequest:
            return False
        places = [text.find(it) for it in (said, *PROBES[: len(ids)]) if it]
        return (
            -1 not in places and places == sorted(places) and "None" not in text and PYTHON not in text[max(places) :]
        )

    for text, bare in product((False, True), (True, False)):
        turns = CallTurns(text=text, bare=bare)
        if not takes(turns, SHORT_ID):
            continue
        if not takes(turns, LONG_ID):
            turns = structs.replace(turns, short=True)
        if not takes(turns, SHORT_ID, said="probe of content"):
            turns = structs.replace(turns, apart=True)
        return turns if takes(turns, SHORT_ID, "probe0002") else structs.replace(turns, calls="one")
    return CallTurns(calls="none")


def called(messages: list[Message], turns: CallTurns) -> list[Message]:
    """The conversation with its calls as the template takes them; without calls it is left as it is."""
    made: list[Message] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        calls = message.get("tool_calls")
        if not calls:
            made.append(_result(message, turns) if message["role"] == "tool" else message)
            continue
        if turns.apart and message.get("content"):
            made.append(
                {key: value for key, value in message.items() if key not in ("tool_calls", "reasoning_content")}
            )
            message = {**message, "content": ""}
        results: list[Message] = []
        while at < len(messages) and messages[at]["role"] == "tool":
            results.append(messages[at])
            at += 1
        if turns.calls == "none":
            made += [_without_ids(message), *(_result(it, turns) for it in results)]
        elif turns.calls == "one" and len(calls) > 1:
            made += [_spelt(it, turns) for it in _one_by_one(message, results)]
        else:
            made += [_spelt(it, turns) for it in (message, *results)]
    return made


def _one_by_one(message: Message, results: list[Message]) -> Iterator[Message]:
    """Each call with its result behind it; what was said and thought stands before the first."""
    calls, left = message["tool_calls"], list(results)
    for number, call in enumerate(calls):
        first = message if number == 0 else {"role": "assistant", "content": ""}
        yield {**first, "tool_calls": [call]}
        mine = [it for it in left if it.get("tool_call_id") == call["id"]] or (left[:1] if len(left) == 1 else [])
        yield from mine[:1]
        left = [it for it in left if it is not (mine[0] if mine else None)]
    yield from left


def _spelt(message: Message, turns: CallTurns) -> Message:
    calls = message.get("tool_calls")
    if calls is None:
        return _result(message, turns)
    bare = {"content": None} if turns.bare and not message.get("content") else {}
    return {**message, **bare, "tool_calls": [_call(call, turns) for call in calls]}


def _call(call: dict[str, Any], turns: CallTurns) -> dict[str, Any]:
    function = call["function"]
    if turns.text and not isinstance(function["arguments"], str):
        function = {**function, "arguments": _json(function["arguments"])}
    return {**call, "id": _id(call["id"], turns), "function": function}


def _result(message: Message, turns: CallTurns) -> Message:
    if turns.calls == "none":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    call_id = message.get("tool_call_id")
    return message if call_id is None else {**message, "tool_call_id": _id(call_id, turns)}


def _id(call_id: str, turns: CallTurns) -> str:
    """An id of other origin becomes one of nine letters and digits, always the same."""
    if not turns.short or SHORT.fullmatch(call_id):
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:9]


def _without_ids(message: Message) -> Message:
    """Calls as text, in the way that most families know."""
    spelt = [f"<tool_call>\n{_json(_plain(call['function']))}\n</tool_call>" for call in message["tool_calls"]]
    content = [message["content"]] if message.get("content") else []
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(content + spelt)}


def _plain(function: dict[str, Any]) -> dict[str, Any]:
    return {"name": function["name"], "arguments": function["arguments"]}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _conversation(said: str, *ids: str) -> Iterator[Message]:
    calls = [
        {"id": it, "type": "function", "function": {"name": name, "arguments": {"it": "x"}}}
        for name, it in zip(PROBES, ids, strict=False)
    ]
    yield {"role": "user", "content": "probe of calls"}
    yield {"role": "assistant", "content": said, "tool_calls": calls}
    yield from ({"role": "tool", "content": f"result {it}", "tool_call_id": it} for it in ids)


def complete(tool: dict[str, Any]) -> dict[str, Any]:
    """The function with everything that a template may read of it."""
    function = tool["function"]
    described = {"name": function["name"], "description": ""}
    parameters = {"type": "object", "properties": {}, **function["parameters"]}
    return {**tool, "function": {**described, **function, "parameters": parameters}}
