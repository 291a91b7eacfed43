"""Conversations as clients send them, the same for the same seed, and as transformers takes them."""

import json
import random
from typing import Any

ODD = (
    "Hello.", "", "  two  spaces  ", "\n\nlines\n", "naïve café e\u0301", "👩‍🚀🏳️‍🌈", "العربية עברית", "日本語の文章。",
    "{{ messages }}", "<b>&amp;</b>", "\t\ttabs", "12345678901234567890", "\u200b\u2581\u2581", "            runs",
    "a" * 300, "'\"\\/",
)  # fmt: skip
PLACE = {"type": "object", "properties": {"city": {"type": "string", "description": "Where."}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": PLACE}},
    {
        "type": "function",
        "function": {
            "name": "count",
            "description": "Counts.",
            "parameters": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}}},
        },
    },
]


def conversation(seed: int, *, tools: bool, thoughts: bool) -> dict[str, Any]:
    """Messages and tools of a request; users and assistants take turns."""
    made = random.Random(seed)  # noqa: S311  not for secrets
    messages: list[dict[str, Any]] = []
    if made.random() < 0.5:
        messages.append({"role": "system", "content": made.choice(ODD) + " Be brief."})
    for turn in range(made.randint(0, 3)):
        messages.append({"role": "user", "content": made.choice(ODD) + made.choice(ODD)})
        if tools and made.random() < 0.6:
            call_id, arguments = f"call{seed:03}{turn:02}", json.dumps({"city": made.choice(ODD)}, ensure_ascii=False)
            call = {"id": call_id, "type": "function", "function": {"name": "look", "arguments": arguments}}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            messages.append({"role": "tool", "content": made.choice(ODD), "tool_call_id": call_id})
        answer: dict[str, Any] = {"role": "assistant", "content": "So: " + made.choice(ODD)}
        if thoughts and made.random() < 0.5:
            answer["reasoning_content"] = "Hm. " + made.choice(ODD)
        messages.append(answer)
    messages.append({"role": "user", "content": "Then " + made.choice(ODD)})
    return {"messages": messages, "tools": TOOLS if tools and made.random() < 0.8 else None}


def for_transformers(chat: dict[str, Any]) -> dict[str, Any]:
    """Arguments as objects, and text where there is no content, as chat templates are given them."""
    return {**chat, "messages": [_told(message) for message in chat["messages"]]}


def _told(message: dict[str, Any]) -> dict[str, Any]:
    if "tool_calls" not in message:
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "content": "", "tool_calls": calls}
