"""A call that ``max_tokens`` cuts off, in each dialect, streamed and whole: what there is of it is told."""

import json
from typing import Any

import pytest

from tests.api.conftest import Serve
from tests.support.asgi import Answer, request
from tests.support.scripted import ByteTokenizer, ScriptedLoader, says

ARGUMENTS = '{"city": "Rome", "n": 3}'
WRITTEN = {
    "json_tools": ('<tool_call>\n{"name": "look", "arguments": ', "}\n</tool_call>"),
    "llama3_json": ('{"name": "look", "parameters": ', "}"),
    "mistral": ('[TOOL_CALLS][{"name": "look", "arguments": ', "}]"),
}
PLACE = {"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "integer"}}}


def chat(limit: int, stream: bool) -> tuple[str, dict[str, Any]]:
    function = {"type": "function", "function": {"name": "look", "parameters": PLACE}}
    return "/v1/chat/completions", {
        "model": "tiny",
        "messages": [{"role": "user", "content": "?"}],
        "tools": [function],
        "max_tokens": limit,
        "stream": stream,
    }


def responses(limit: int, stream: bool) -> tuple[str, dict[str, Any]]:
    function = {"type": "function", "name": "look", "parameters": PLACE}
    told = {"max_output_tokens": max(16, limit), "stream": stream}
    return "/v1/responses", {"model": "tiny", "input": "?", "tools": [function], **told}


def messages(limit: int, stream: bool) -> tuple[str, dict[str, Any]]:
    told = {"max_tokens": limit, "stream": stream, "tools": [{"name": "look", "input_schema": PLACE}]}
    return "/v1/messages", {"model": "tiny", "messages": [{"role": "user", "content": "?"}], **told}


def events(answer: Answer) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def of_chat(answer: Answer, stream: bool) -> tuple[str, list[tuple[str, str]], str | None]:
    """Text, calls as names and arguments, and why it ended."""
    if not stream:
        choice = answer.json()["choices"][0]
        told = [it["function"] for it in choice["message"].get("tool_calls") or ()]
        made = [(it["name"], it["arguments"]) for it in told]
        return choice["message"]["content"] or "", made, choice["finish_reason"]
    text, reason = "", None
    calls: dict[int, tuple[str, str]] = {}
    for choice in (it["choices"][0] for it in events(answer) if it["choices"]):
        text += choice["delta"].get("content") or ""
        for call in choice["delta"].get("tool_calls") or ():
            name, arguments = calls.get(call["index"], ("", ""))
            told = call["function"]
            calls[call["index"]] = (name + (told.get("name") or ""), arguments + (told.get("arguments") or ""))
        reason = choice["finish_reason"] or reason
    return text, list(calls.values()), reason


def of_responses(answer: Answer, stream: bool) -> tuple[str, list[tuple[str, str]], str | None]:
    body = events(answer)[-1]["response"] if stream else answer.json()
    text = "".join(part["text"] for it in body["output"] if it["type"] == "message" for part in it["content"])
    calls = [(it["name"], it["arguments"]) for it in body["output"] if it["type"] == "function_call"]
    return text, calls, (body["incomplete_details"] or {"reason": None})["reason"]


def of_messages(answer: Answer, stream: bool) -> tuple[str, list[tuple[str, str]], str | None]:
    if not stream:
        body = answer.json()
        text = "".join(it["text"] for it in body["content"] if it["type"] == "text")
        return (
            text,
            [(it["name"], json.dumps(it["input"])) for it in body["content"] if it["type"] == "tool_use"],
            (body["stop_reason"]),
        )
    text, calls, reason = "", [], None
    for event in events(answer):
        if event["type"] == "content_block_start" and event["content_block"]["type"] == "tool_use":
            calls.append((event["content_block"]["name"], ""))
        delta = event.get("delta", {})
        text += delta.get("text", "")
        if "partial_json" in delta:
            calls[-1] = (calls[-1][0], calls[-1][1] + delta["partial_json"])
        reason = delta.get("stop_reason") or reason
    return text, calls, reason


DIALECTS = {
    "chat": (chat, of_chat, "length"),
    "responses": (responses, of_responses, "max_output_tokens"),
    "messages": (messages, of_messages, "max_tokens"),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("written", WRITTEN)
async def test_what_there_is_of_a_call_that_was_cut_off_is_told(
    serve: Serve, loader: ScriptedLoader, dialect: str, stream: bool, written: str
) -> None:
    asked, told, why = DIALECTS[dialect]
    before, after = WRITTEN[written]
    whole = before + ARGUMENTS + after
    loader.tokenizer = ByteTokenizer(template_takes_tools=True, call_format=written)
    loader.script = says(whole)
    app = serve()
    for limit in range(20, len(whole), 5 if stream else 7):
        url, body = asked(limit, stream)
        answer = await request(app, "POST", url, body)
        assert answer.status == 200
        text, calls, reason = told(answer, stream)
        assert reason == why, limit
        assert text == "" or (written == "llama3_json" and not calls and whole.startswith(text)), limit
        begun = whole[:limit].removeprefix(before) if limit > len(before) else ""
        if begun:
            [(name, arguments)] = calls
            assert name == "look"
            if dialect != "messages" or stream:
                assert ARGUMENTS.startswith(arguments)
                assert len(arguments) >= min(len(begun), len(ARGUMENTS)) - 8
