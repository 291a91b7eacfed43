"""Text to tokens and back, as vLLM and as llama.cpp spell it."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.endpoints.tokenize import _text
from app.settings import ModelEntry, Settings
from tests.api.conftest import Serve
from tests.support.asgi import request
from tests.support.scripted import BOS, EOS

HI = [{"role": "user", "content": "Hé"}]
TOOL = {"type": "function", "function": {"name": "look"}}


@pytest.fixture
def ask(serve: Serve) -> Callable[..., Awaitable[dict[str, Any]]]:
    app = serve()

    async def ask(url: str, body: dict[str, str], status: int = 200) -> dict[str, Any]:
        answer = await request(app, "POST", url, {"model": "tiny", **body})
        assert answer.status == status, answer.body
        return answer.json() if status == 200 else answer.error

    return ask


@pytest.mark.parametrize("below", ["", "/v1"])
async def test_a_text_is_tokens_and_comes_back(ask: Callable[..., Awaitable[dict[str, Any]]], below: str) -> None:
    told = await ask(f"{below}/tokenize", {"prompt": "Hé"})
    assert told == {"count": 4, "max_model_len": 4096, "tokens": [BOS, *"Hé".encode()]}
    back = await ask(f"{below}/detokenize", {"tokens": told["tokens"]})
    assert back == {"prompt": "<s>Hé", "content": "<s>Hé"}
    rendered = await ask(f"{below}/apply-template", {"messages": HI})
    assert rendered == {"prompt": "<user>Hé\n<assistant>"}


@pytest.mark.parametrize(
    ("body", "special"),
    [
        ({"prompt": "a"}, True),
        ({"prompt": "a", "add_special_tokens": False}, False),
        ({"content": "a"}, False),
        ({"content": "a", "add_special": True, "parse_special": True}, True),
        ({"messages": HI}, False),
        ({"messages": HI, "add_special_tokens": True}, True),
    ],
)
async def test_who_adds_special_tokens_is_each_dialects_own_matter(
    ask: Callable[..., Awaitable[dict[str, Any]]], body: dict[str, Any], special: bool
) -> None:
    told = await ask("/tokenize", body)
    assert (told["tokens"][0] == BOS) is special
    assert told["count"] == len(told["tokens"])


async def test_a_conversation_is_rendered_before_it_is_tokens(ask: Callable[..., Awaitable[dict[str, Any]]]) -> None:
    rendered = (await ask("/apply-template", {"messages": HI}))["prompt"]
    told = await ask("/tokenize", {"messages": HI})
    assert bytes(told["tokens"]).decode() == rendered
    counted = await ask("/v1/messages/count_tokens", {"messages": HI})
    assert counted == {"input_tokens": told["count"]}


async def test_tools_are_part_of_it(ask: Callable[..., Awaitable[dict[str, Any]]]) -> None:
    with_tools = await ask("/apply-template", {"messages": HI, "tools": [TOOL]})
    assert "look" in with_tools["prompt"]
    assert (await ask("/tokenize", {"messages": HI, "tools": [TOOL]}))["count"] == len(with_tools["prompt"].encode())


async def test_an_answer_may_be_continued(ask: Callable[..., Awaitable[dict[str, Any]]]) -> None:
    messages = [*HI, {"role": "assistant", "content": "So"}]
    told = await ask("/apply-template", {"messages": messages, "continue_final_message": True})
    assert told["prompt"].endswith("<assistant>So")


async def test_pieces_are_told_in_both_shapes(ask: Callable[..., Awaitable[dict[str, Any]]]) -> None:
    told = await ask("/tokenize", {"prompt": "Hé", "return_token_strs": True})
    assert told["token_strs"] == ["<s>", "H", "�", "�"]
    told = await ask("/tokenize", {"content": "Hé", "with_pieces": True})
    assert told["tokens"] == [{"id": 72, "piece": "H"}, {"id": 195, "piece": [195]}, {"id": 169, "piece": [169]}]


@settings(deadline=None)
@given(st.binary(max_size=6))
def test_a_piece_is_its_text_or_else_its_bytes(piece: bytes) -> None:
    told = _text(piece)
    assert (told.encode() if isinstance(told, str) else bytes(told)) == piece


@pytest.mark.parametrize(
    ("url", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "content": "b"}, "content"),
        ("/tokenize", {"content": "b", "messages": HI}, "messages"),
        ("/tokenize", {"prompt": "a", "add_special": True, "add_special_tokens": True}, "add_special"),
        ("/tokenize", {"content": "a", "parse_special": False}, "parse_special"),
        ("/tokenize", {"prompt": 3}, "prompt"),
        ("/tokenize", {"messages": HI, "chat_template": "{{ 1 }}"}, "chat_template"),
        ("/apply-template", {}, "messages"),
        ("/apply-template", {"messages": []}, "messages"),
        ("/apply-template", {"messages": HI, "chat_template_kwargs": {"tools": 1}}, "chat_template_kwargs.tools"),
        ("/apply-template", {"messages": HI, "continue_final_message": True}, "continue_final_message"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [1, EOS + 1]}, "tokens.1"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    ask: Callable[..., Awaitable[dict[str, Any]]], url: str, body: dict[str, Any], param: str
) -> None:
    assert (await ask(url, body, 400))["param"] == param


async def test_a_key_is_wanted_where_keys_are(serve: Serve) -> None:
    app = serve(settings=Settings(api_keys=("sk-right",), models={"tiny": ModelEntry()}))
    for url in ("/tokenize", "/v1/tokenize", "/detokenize", "/apply-template"):
        assert (await request(app, "POST", url, {"prompt": "a"})).status == 401
        assert (await request(app, "POST", url, {"prompt": "a"}, {"x-api-key": "sk-right"})).status in {200, 400}
    assert (await request(app, "GET", "/")).status == 200
