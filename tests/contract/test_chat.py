"""``/v1/chat/completions`` as the OpenAI SDK sees it."""

from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.contract.conftest import Server

USER: Any = {"role": "user", "content": "Say hello."}
SETTINGS: Any = {"temperature": 0, "seed": 1, "max_completion_tokens": 12}


@pytest.fixture
def ask(client: openai.OpenAI, server: Server) -> Callable[..., Any]:
    return lambda *messages, **fields: client.chat.completions.create(
        model=server.model, messages=list(messages) or [USER], **{**SETTINGS, **fields}
    )


def test_a_whole_answer(ask: Callable[..., Any], server: Server) -> None:
    answer = ask()
    assert (answer.object, answer.model) == ("chat.completion", server.model)
    assert answer.id.startswith("chatcmpl-")
    message = answer.choices[0].message
    assert (message.role, message.refusal, message.tool_calls) == ("assistant", None, None)
    assert answer.usage.completion_tokens <= 12
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0
    if server.says:
        assert server.says.startswith(message.content.removesuffix("�"))


def test_the_stream_says_what_the_whole_answer_says_and_the_role_once(ask: Callable[..., Any]) -> None:
    whole = ask(n=2)
    chunks = list(ask(n=2, stream=True, stream_options={"include_usage": True}))
    texts = {0: "", 1: ""}
    roles: dict[Any, Any] = {0: [], 1: []}
    ends = {}
    for chunk in chunks[:-1]:
        assert chunk.usage is None
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        roles[choice.index].append(choice.delta.role)
        if choice.finish_reason:
            ends[choice.index] = choice.finish_reason
    assert texts == {c.index: c.message.content for c in whole.choices}
    assert ends == {c.index: c.finish_reason for c in whole.choices}
    assert all(of[0] == "assistant" and not any(of[1:]) for of in roles.values())
    assert (chunks[-1].choices, chunks[-1].object, chunks[-1].id) == ([], "chat.completion.chunk", chunks[0].id)
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_the_sdks_own_stream_helper_understands(client: openai.OpenAI, server: Server) -> None:
    with client.chat.completions.stream(model=server.model, messages=[USER], **SETTINGS) as stream:
        kinds = [event.type for event in stream]
        final = stream.current_completion_snapshot
    assert {"chunk", "content.delta", "content.done"} <= set(kinds)
    assert final.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(ask: Callable[..., Any], stream: bool) -> None:
    fields = {"logprobs": True, "top_logprobs": 3}
    answer = ask(**fields)
    tokens = answer.choices[0].logprobs.content
    if stream:
        pieces = [c.choices[0].logprobs for c in ask(**fields, stream=True)]
        tokens = [token for piece in pieces if piece for token in piece.content]
    assert len(tokens) == answer.usage.completion_tokens
    assert (
        b"".join(bytes(token.bytes) for token in tokens)
        .decode(errors="replace")
        .startswith(answer.choices[0].message.content.rstrip("�"))
    )
    for token in tokens:
        scores = [top.logprob for top in token.top_logprobs]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)


def test_every_role_and_kind_of_text(ask: Callable[..., Any]) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    answer = ask(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "hello."}],
            "name": "me",
        },
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "4", "tool_call_id": "call_1"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        USER,
    )
    assert answer.choices[0].finish_reason in {"stop", "length"}


def test_an_answer_is_continued(ask: Callable[..., Any]) -> None:
    answer = ask(
        USER,
        {"role": "assistant", "content": "Once upon"},
        extra_body={"continue_final_message": True, "add_generation_prompt": False},
    )
    assert answer.choices[0].message.role == "assistant"


def test_what_is_not_offered_is_refused_by_name(ask: Callable[..., Any]) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}
    with pytest.raises(openai.BadRequestError) as refused:
        ask(image)
    assert refused.value.param == "messages.0.content.0"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"store": True}, "store"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"extra_body": {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}}, "chat_template_kwargs.chat_template"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_completion_tokens": None, "max_tokens": 0}, "max_tokens"),
    ]
    for fields, param in cases:
        with pytest.raises(openai.BadRequestError) as refused:
            ask(**fields)
        assert refused.value.param == param, fields


def test_harmless_fields_are_accepted(ask: Callable[..., Any]) -> None:
    assert ask(
        store=False,
        service_tier="auto",
        metadata={"a": "b"},
        user="me",
        modalities=["text"],
        extra_body={"unknown_to_everybody": 1, "keep_alive": "5m"},
    ).choices


def test_null_means_unset(ask: Callable[..., Any]) -> None:
    assert ask(temperature=None, top_p=None, n=None, stop=None, stream_options=None, logit_bias=None).choices
