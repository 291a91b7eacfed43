"""What an agent asks again and again is computed once: Claude Code's layout, 20,000 tokens, on a real engine."""

from contextlib import asynccontextmanager

import anthropic
import pytest

from app.main import create_app
from app.settings import ModelEntry, Settings
from tests.support.live import live
from tests.support.tiny import make_tiny

WORDS = "The quick brown fox jumps over the lazy dog, and the dog barks at the fox in the evening. "
TOOLS = [
    {
        "name": f"Tool{number}",
        "description": WORDS * 6,
        "input_schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {"path": {"type": "string", "description": WORDS}},
            "required": ["path"],
            "additionalProperties": False,
        },
        **({"cache_control": {"type": "ephemeral"}} if number == 23 else {}),
    }
    for number in range(24)
]


def asked(turn: int, *more):
    """A request as Claude Code makes it; its billing line is another each time."""
    marked = {"cache_control": {"type": "ephemeral"}}
    return {
        "model": "agent",
        "max_tokens": 4,
        "system": [
            {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1.197; cch={turn}f{turn * 7919};"},
            {"type": "text", "text": "You are a coding agent.", **marked},
            {"type": "text", "text": WORDS * 300, **marked},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": WORDS * 20}, {"type": "text", "text": "Say hello."}]},
            {"role": "system", "content": WORDS * 60},
            *more,
        ],
        "tools": TOOLS,
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
        "metadata": {"user_id": f'{{"session_id": "{turn}"}}'},
    }


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    root = tmp_path_factory.mktemp("agent")
    make_tiny(root / "agent", seed=3, context=40_000)
    models = {"agent": ModelEntry(tool_prompt="generic")}

    @asynccontextmanager
    async def app():
        yield create_app(Settings(model_roots=(root,), memory_budget=4 << 30, offline=True, models=models))

    with live(app) as url, anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=120) as made:
        yield made


def test_the_next_turn_of_an_agent_reads_its_prompt_from_the_cache(client):
    counted = client.messages.count_tokens(
        **{key: value for key, value in asked(1).items() if key not in {"max_tokens", "metadata"}}
    ).input_tokens
    assert counted > 20_000
    filled = client.messages.create(**{**asked(1), "max_tokens": 0}).usage
    assert filled.input_tokens + filled.cache_read_input_tokens == counted
    first = client.messages.create(**asked(2)).usage
    assert first.input_tokens + first.cache_read_input_tokens == counted
    assert first.cache_read_input_tokens >= 0.98 * counted
    call = {"type": "tool_use", "id": "toolu_1", "name": "Tool1", "input": {"path": "x"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": WORDS * 3}
    more = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    with client.messages.stream(**asked(3, *more)) as stream:
        second = stream.get_final_message().usage
    assert second.cache_read_input_tokens >= 0.98 * counted
    assert second.input_tokens + second.cache_read_input_tokens > counted
