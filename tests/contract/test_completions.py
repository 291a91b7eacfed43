"""``/v1/completions`` as the OpenAI SDK sees it."""

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.contract.conftest import Server

SETTINGS: Any = {"temperature": 0, "seed": 1, "max_tokens": 12}


@pytest.fixture
def ask(client: openai.OpenAI, server: Server) -> Callable[..., Any]:
    return lambda prompt="Once upon", **fields: client.completions.create(
        model=server.model, prompt=prompt, **{**SETTINGS, **fields}
    )


def test_a_whole_answer(ask: Callable[..., Any], server: Server) -> None:
    answer = ask()
    assert (answer.object, answer.model) == ("text_completion", server.model)
    assert answer.id.startswith("cmpl-")
    assert answer.system_fingerprint
    (choice,) = answer.choices
    assert choice.finish_reason in {"stop", "length"}
    assert answer.usage.completion_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    if server.says:
        assert server.says.startswith(choice.text.removesuffix("�"))


def test_the_stream_says_what_the_whole_answer_says(ask: Callable[..., Any]) -> None:
    whole = ask(max_tokens=40)
    chunks = list(ask(max_tokens=40, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert [c.usage for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert {(c.id, c.object) for c in chunks} == {(chunks[0].id, "text_completion")}


def test_choices_come_in_index_order_prompt_major(ask: Callable[..., Any], server: Server) -> None:
    answer = ask(["echo:a", "echo:bb"], n=2, max_tokens=40)
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    if server.says:
        assert [c.text for c in answer.choices] == ["echo:a", "echo:a", "echo:bb", "echo:bb"]
    texts: dict[int, str] = {}
    for chunk in ask(["echo:a", "echo:bb"], n=2, max_tokens=40, stream=True):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    assert [texts[index] for index in range(4)] == [c.text for c in answer.choices]


def test_token_ids_are_a_prompt(ask: Callable[..., Any]) -> None:
    answer = ask([5, 6, 7])
    assert answer.usage.prompt_tokens == 3
    assert ask([[5, 6, 7], [8]]).usage.prompt_tokens == 4
    with pytest.raises(openai.BadRequestError) as refused:
        ask([2**31 - 1])
    assert refused.value.param == "prompt"


@pytest.mark.parametrize("prompt", ["", [""], [[]]])
def test_an_empty_prompt_begins_a_text(ask: Callable[..., Any], prompt: str | list[str | list[Any]]) -> None:
    assert ask(prompt).usage.prompt_tokens == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("echo", [False, True])
def test_logprobs_in_the_legacy_shape(ask: Callable[..., Any], stream: bool, echo: bool) -> None:
    fields = {"logprobs": 2, "echo": echo, "max_tokens": 5}
    answer = ask("Once", **fields)
    if stream:
        pieces = [c.choices[0].logprobs for c in ask("Once", **fields, stream=True) if c.choices[0].logprobs]
        tokens, scores, tops, offsets = (
            [item for piece in pieces for item in getattr(piece, name)]
            for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        )
    else:
        whole = answer.choices[0].logprobs
        tokens, scores, tops, offsets = whole.tokens, whole.token_logprobs, whole.top_logprobs, whole.text_offset
    assert len(tokens) == len(scores) == len(tops) == len(offsets)
    assert len(tokens) == answer.usage.completion_tokens + (answer.usage.prompt_tokens if echo else 0)
    assert (scores[0] is None, tops[0] is None) == (echo, echo)
    assert all(score <= 0 and 1 <= len(top) <= 3 for score, top in list(zip(scores, tops, strict=True))[1:])
    assert offsets == sorted(offsets)
    text = answer.choices[0].text
    shown = [(t, at) for t, at in zip(tokens, offsets, strict=True) if not t.startswith("bytes:") and t != "<s>"]
    assert len(shown) >= len(tokens) - 5
    assert all(text.startswith(t, at) for t, at in shown)


def test_a_prompt_is_scored_without_generating(ask: Callable[..., Any]) -> None:
    answer = ask("Once upon", echo=True, logprobs=1, max_tokens=0)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == ("Once upon", "length")
    assert len(choice.logprobs.tokens) == answer.usage.prompt_tokens
    assert answer.usage.completion_tokens == 0


def test_the_best_are_picked(ask: Callable[..., Any]) -> None:
    answer = ask(n=2, best_of=4, max_tokens=4, temperature=1)
    assert [c.index for c in answer.choices] == [0, 1]
    with pytest.raises(openai.BadRequestError) as refused:
        ask(n=1, best_of=2, stream=True)
    assert refused.value.param == "best_of"


def test_a_stop_string_is_never_sent(ask: Callable[..., Any], server: Server) -> None:
    if server.says is None:
        pytest.skip("what the model says is not known")
    for stop in ("wör", ["nothing", "wör"]):
        answer = ask(max_tokens=50, stop=stop)
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("Hello, ", "stop")
        streamed = "".join(c.choices[0].text for c in ask(max_tokens=50, stop=stop, stream=True))
        assert streamed == "Hello, "


def test_what_cannot_be_done_is_a_400_that_names_the_field(
    ask: Callable[..., Any], client: openai.OpenAI, server: Server
) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"suffix": "the end"}, "suffix"),
        ({"stop": ["a"] * 65}, "stop"),
        ({"n": 1000}, "n"),
        ({"logprobs": 6}, "logprobs"),
        ({"logit_bias": {"2000000000": 1}}, "logit_bias"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"extra_body": {"stop_token_ids": [2**31 - 1]}}, "stop_token_ids"),
    ]
    for fields, param in cases:
        with pytest.raises(openai.BadRequestError) as refused:
            ask(**fields)
        assert refused.value.param == param
        assert refused.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=server.model, prompt="a " * 20_000, max_tokens=1)
    assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize("limit", [-1, 10**9])
def test_a_limit_beyond_the_context_is_an_upper_bound(client: openai.OpenAI, server: Server, limit: int) -> None:
    stream = client.completions.create(model=server.model, prompt="a", max_tokens=limit, stream=True, temperature=0)
    for chunk in stream:
        assert chunk.choices[0].finish_reason is None
        break
    stream.close()
    chat = client.chat.completions.create(
        model=server.model,
        messages=[{"role": "user", "content": "a"}],
        max_completion_tokens=limit,
        stop=[*"abcdefghijkl", ""],
    )
    assert chat.choices[0].finish_reason in {"stop", "length"}


async def test_sixteen_at_once_are_each_answered(aclient: openai.AsyncOpenAI, server: Server) -> None:
    async def one(number: int) -> str:
        stream = await aclient.completions.create(
            model=server.model, prompt=f"echo:{number}", stream=True, **{**SETTINGS, "max_tokens": 20}
        )
        return "".join([chunk.choices[0].text async for chunk in stream])

    texts = await asyncio.gather(*(one(number) for number in range(16)))
    assert len(texts) == 16
    if server.says:
        assert texts == [f"echo:{number}" for number in range(16)]


def real_ask(real: Server, **fields: Any) -> Any:
    with openai.OpenAI(base_url=real.base_url, api_key="none", max_retries=0, timeout=60) as client:
        answer = client.completions.create(**{"model": real.model, "max_tokens": 8, "temperature": 0, **fields})
        return list(answer) if fields.get("stream") else answer


def test_the_token_that_ends_a_completion_is_scored(real: Server) -> None:
    """What lm-eval's local-completions counts on: ``[context:-1]`` of the scores is the continuation, no token less."""
    answer = real_ask(real, prompt="Hi", max_tokens=1, echo=True, logprobs=1, logit_bias={"2": 100})
    choice: Any = answer.choices[0]
    assert (choice.text, choice.finish_reason) == ("Hi", "stop")
    assert (choice.logprobs.tokens[-1], choice.logprobs.text_offset[-1]) == ("<|im_end|>", 2)
    assert len(choice.logprobs.tokens) == answer.usage.prompt_tokens + 1


def test_a_gap_is_filled_in_the_models_own_format(real: Server) -> None:
    def ask(prompt: str | list[str], **fields: Any) -> Any:
        return real_ask(real, model="coder", prompt=prompt, **fields)

    whole = ask("def f(", suffix="return x")
    parts = [ask(text, max_tokens=0, echo=True, logprobs=0).choices[0].logprobs for text in ("def f(", "return x")]
    assert whole.usage.prompt_tokens == sum(len(part.tokens) for part in parts) + 3
    spelt = ask("<|fim_prefix|>def f(<|fim_suffix|>return x<|fim_middle|>")
    assert whole.choices[0].text == spelt.choices[0].text
    assert whole.choices[0].text != ask("def f(").choices[0].text
    assert ask("def f(", suffix="return x", echo=True).choices[0].text == "def f(" + whole.choices[0].text
    streamed = ask("def f(", suffix="return x", stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole.choices[0].text
    several = ask(["def f(", "def g("], suffix="return x", n=2).choices
    assert [choice.text for choice in several[:2]] == [whole.choices[0].text] * 2
    ended = ask("def f(", suffix="return x", logit_bias={"6": 100})
    assert (ended.choices[0].text, ended.choices[0].finish_reason) == ("", "stop")
    with pytest.raises(openai.BadRequestError) as refused:
        ask("def f(", suffix="return x", echo=True, logprobs=1)
    assert refused.value.param == "echo"


def test_special_tokens_in_a_prompt_keep_their_place(real: Server) -> None:
    text = "<|im_start|>user\nGrüße 🙂<|im_end|>"
    choice: Any = real_ask(real, prompt=text, echo=True, logprobs=0, max_tokens=4).choices[0]
    assert choice.text.startswith(text)
    placed = [
        (token, at)
        for token, at in zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True)
        if not token.startswith("bytes:")
    ]
    assert ("<|im_start|>", 0) in placed
    assert all(choice.text.startswith(token, at) for token, at in placed)
