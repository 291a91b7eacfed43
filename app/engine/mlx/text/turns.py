"""Which turns a chat template takes, and conversations folded so that it takes them.

Some templates know one system turn, at the head, and lose or refuse others (Qwen 3.5, gpt-oss); some know none (Gemma);
some want users and assistants to alternate (Gemma, Mistral), a few of them with tool results in between. Folding moves
nothing: each turn is told where it stands, so that a conversation that grows keeps its beginning, and with it the
prefix cache.
"""

from collections.abc import Callable
from itertools import takewhile
from typing import Any, Literal

from msgspec import Struct

from app.errors import InvalidRequest

Message = dict[str, Any]
"""A message as chat templates read it."""

CALL = {"id": "call00000", "type": "function", "function": {"name": "probe", "arguments": {"it": "x"}}}
GAP = "\n\n"
"""Between two texts that become one turn."""


class Turns(Struct, frozen=True):
    """What a template takes: where system turns may stand, users and assistants twice in a row, users after a tool."""

    system: Literal["anywhere", "first", "none"] = "anywhere"
    repeated: bool = True
    user_after_tool: bool = True


def turns_of(render: Callable[[list[Message]], str]) -> Turns:
    """Found by trying: a turn is taken if the template does not refuse it and its text stands where it should."""
    user, answer = _said("user", 0), _said("assistant", 1)

    def takes(*messages: Message) -> bool:
        try:
            text = render(list(messages))
        except InvalidRequest:
            return False
        places = [text.find(message["content"]) for message in messages if message["content"]]
        return -1 not in places and places == sorted(places)

    if not takes(user):
        return Turns()
    system: Literal["anywhere", "first", "none"] = "none"
    if takes(_said("system", 2), user):
        later = takes(_said("system", 2), user, _said("system", 3), answer, _said("system", 4), _said("user", 5))
        system = "anywhere" if later else "first"
    called = (user, {"role": "assistant", "content": "", "tool_calls": [CALL]}, _said("tool", 6))
    return Turns(
        system=system,
        repeated=takes(user, _said("user", 2), answer, _said("assistant", 3)),
        user_after_tool=takes(*called, _said("user", 7)) or not takes(*called),
    )


def folded(messages: list[Message], turns: Turns) -> list[Message]:
    """The conversation in turns that the template takes; system turns at its head always become one."""
    head = list(takewhile(lambda message: message["role"] == "system", messages))
    made: list[Message] = []
    as_user = False
    if head:
        as_user = turns.system == "none"
        made.append({**head[0], "role": "user" if as_user else "system", "content": _text(*head)})
    for message in messages[len(head) :]:
        turn, beside = message, as_user
        as_user = message["role"] == "system" and turns.system != "anywhere"
        if as_user:
            turn = {"role": "user", "content": f"<system>\n{message['content']}\n</system>"}
        if not turns.repeated and message["role"] == "assistant" and (not made or made[-1]["role"] == "system"):
            made.append({"role": "user", "content": ""})
        _add(made, turn, turns, joined=as_user or beside)
    return made


def _add(made: list[Message], message: Message, turns: Turns, *, joined: bool) -> None:
    """Append the message, or put it into the turn before, where both must be one or (``joined``) should be."""
    before = made[-1] if made else None
    role = message["role"]
    if before is None or role not in {"user", "assistant"}:
        made.append(message)
    elif role == before["role"] and (joined or not turns.repeated):
        made[-1] = _one(before, message)
    elif role == "user" and before["role"] == "tool" and not turns.user_after_tool:
        made[-1] = {**before, "content": _text(before, message)}
    else:
        made.append(message)


def _one(first: Message, second: Message) -> Message:
    """Two turns of one role."""
    both = {**first, **second, "content": _text(first, second)}
    if calls := [*first.get("tool_calls", ()), *second.get("tool_calls", ())]:
        both["tool_calls"] = calls
    if thoughts := [it["reasoning_content"] for it in (first, second) if it.get("reasoning_content")]:
        both["reasoning_content"] = GAP.join(thoughts)
    return both


def _text(*messages: Message) -> str:
    return GAP.join(it["content"] for it in messages if it.get("content"))


def _said(role: str, number: int) -> Message:
    return {"role": role, "content": f"probe {number} of turns"}
