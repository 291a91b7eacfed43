"""Tokens on a real engine: what is counted is what a request is charged with, and texts come back."""

from typing import Any

import httpx2
import openai
import pytest

from tests.contract.conftest import Server

TEXTS = ["Hello, world.", " leading  and trailing ", "Grüße, 日本語 🙂\n\n", "", "<|im_start|>user\n", "a" * 3000]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back(http: httpx2.Client, server: Server, text: str) -> None:
    told = http.post("/tokenize", json={"model": server.model, "content": text, "with_pieces": True}).json()
    ids = [token["id"] for token in told["tokens"]]
    back = http.post("/detokenize", json={"model": server.model, "tokens": ids}).json()
    assert back["content"] == text
    pieces = [it["piece"].encode() if isinstance(it["piece"], str) else bytes(it["piece"]) for it in told["tokens"]]
    assert b"".join(pieces).decode() == text


def test_a_conversation_has_as_many_tokens_as_its_answers_usage_says(
    http: httpx2.Client, client: openai.OpenAI, server: Server
) -> None:
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße"}]
    told = http.post("/v1/tokenize", json={"model": server.model, "messages": messages}).json()
    answer = client.chat.completions.create(model=server.model, messages=messages, max_tokens=1)
    assert told["count"] == answer.usage.prompt_tokens
    rendered = http.post("/apply-template", json={"model": server.model, "messages": messages}).json()["prompt"]
    assert "Grüße" in rendered
    again = http.post("/tokenize", json={"model": server.model, "prompt": rendered, "add_special_tokens": False}).json()
    assert again["tokens"] == told["tokens"]


def test_a_token_that_the_model_has_not_is_refused(http: httpx2.Client, server: Server) -> None:
    answer = http.post("/detokenize", json={"model": server.model, "tokens": [10**6]})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "tokens.0"
