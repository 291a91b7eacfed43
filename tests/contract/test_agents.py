"""Prompts of coding agents, as long as theirs: the second turn computes only what is new, in both dialects."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from httpx2 import Client

from app.main import create_app
from app.settings import ModelEntry, Settings
from tests.support.live import live
from tests.support.tiny import make_tiny

LONG = 20_000
RULES = "Read the files before you change them, run the tests, and say what you did. "
SCHEMA = {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]}
ARGUMENTS = {"cmd": "ls"}


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("models")
    make_tiny(root / "tiny", seed=3, width=32, layers=1, context=1 << 15)
    settings = Settings(
        model_roots=(root,),
        memory_budget=4 << 30,
        offline=True,
        prefill_slice=2048,
        models={"tiny": ModelEntry(tool_prompt="generic")},
    )

    @asynccontextmanager
    async def app() -> AsyncIterator[Any]:
        yield create_app(settings)

    with live(app) as url, httpx2.Client(base_url=url, timeout=300) as made:
        yield made


def asked(http: Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = http.post(path, json={"model": "tiny", "temperature": 0, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_codex(http: httpx2.Client) -> None:
    said = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": RULES * 350}]},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Network is off."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<cwd>/work</cwd>"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "List the files."}]},
    ]
    run = {"type": "function", "name": "run", "strict": False, "parameters": SCHEMA}
    body = {"tools": [run, {"type": "namespace", "name": "ns", "tools": [run]}, {"type": "web_search"}], "store": False}
    body |= {"max_output_tokens": 8, "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k"}
    first = asked(http, "/v1/responses", {"input": said, **body})["usage"]
    called = {"type": "function_call", "call_id": "call_1", "name": "run", "arguments": json.dumps(ARGUMENTS)}
    result = {"type": "function_call_output", "call_id": "call_1", "output": "a.py b.py"}
    second = asked(http, "/v1/responses", {"input": [*said, called, result], **body})["usage"]
    assert first["input_tokens"] > LONG
    assert second["input_tokens_details"]["cached_tokens"] >= 0.98 * first["input_tokens"]


def test_claude_code(http: httpx2.Client) -> None:
    def system(number: int) -> list[dict[str, Any]]:
        billing = f"x-anthropic-billing-header: cc_version=2.1.197; cc_entrypoint=cli; cch={number};"
        texts = (billing, "You are a coding agent.", RULES * 280)
        return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}} for text in texts]

    said = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Rules of the project."}, {"type": "text", "text": "List."}],
        },
        {"role": "system", "content": RULES * 70},
    ]
    body = {"tools": [{"name": "run", "description": "Runs.", "input_schema": SCHEMA}], "max_tokens": 8}
    first = asked(http, "/v1/messages", {"system": system(1), "messages": said, **body})["usage"]
    called = {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "toolu_1", "name": "run", "input": ARGUMENTS}],
    }
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "a.py b.py"}]}
    told = [*said, called, result]
    second = asked(http, "/v1/messages", {"system": system(2), "messages": told, **body})["usage"]
    prompt = first["input_tokens"] + (first["cache_read_input_tokens"] or 0)
    assert prompt > LONG
    assert second["cache_read_input_tokens"] >= 0.98 * prompt
