"""Tools for models whose template knows none: told in the system message, called as ``json_tools`` has it."""

import json
from collections.abc import Sequence
from typing import Any

from app.generation.tools.json_tools import END, START
from app.generation.tools.toolbox import Tool

Message = dict[str, Any]
"""A message as chat templates read it."""


def with_tools(messages: Sequence[Message], tools: tuple[Tool, ...]) -> list[Message]:
    """The conversation with the functions described first, and with calls and their results as text."""
    rest = [_plain(message) for message in messages]
    system = [rest.pop(0)["content"]] if rest and rest[0]["role"] == "system" else []
    return [{"role": "system", "content": "\n\n".join([*system, _described(tools)])}, *rest]


def _described(tools: tuple[Tool, ...]) -> str:
    lines = "\n".join(json.dumps(tool.definition()["function"], ensure_ascii=False) for tool in tools)
    return (
        "You can call functions. Each line describes one, its parameters as a JSON schema:\n"
        f"{lines}\n"
        "To call one, answer with nothing but\n"
        f'{START}\n{{"name": "the function", "arguments": {{the arguments}}}}\n{END}\n'
        "The result comes back in the next message. If no function helps, answer in plain words."
    )


def _plain(message: Message) -> Message:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    calls = message.get("tool_calls")
    if not calls:
        return message
    spelt = [f"{START}\n{json.dumps(call['function'], ensure_ascii=False)}\n{END}" for call in calls]
    content = [message["content"]] if message.get("content") else []
    return {"role": "assistant", "content": "\n".join(content + spelt)}
