"""``/v1/messages`` as the Anthropic SDK sees it."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import anthropic
import pytest

from tests.contract.conftest import Server
from tests.support.calling import THOUGHT, scripted_caller

USER: Any = {"role": "user", "content": "Say hello."}
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ADAPTIVE: Any = {"type": "adaptive"}


@pytest.fixture
def ask(server: Server) -> Iterator[Callable[..., Any]]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=30) as client:
        yield lambda *messages, **fields: client.messages.create(
            model=server.model, messages=list(messages) or [USER], **{"max_tokens": 12, **fields}
        )


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[anthropic.Anthropic]:
    """A client of a service whose model thinks, calls a tool, and tells what it said."""
    with scripted_caller(tmp_path_factory.mktemp("anthropic")) as url:
        base = url.removesuffix("/v1")
        with anthropic.Anthropic(base_url=base, auth_token="none", max_retries=0, timeout=30) as client:
            yield client


def test_a_whole_answer(ask: Callable[..., Any], server: Server) -> None:
    answer = ask(extra_body={"temperature": 0})
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", server.model)
    assert answer.id.startswith("msg_")
    assert answer.stop_reason in {"end_turn", "max_tokens"}
    assert all(block.type == "text" for block in answer.content)
    assert answer.usage.output_tokens <= 12
    assert answer.usage.input_tokens > 0
    assert answer._request_id
    if server.says:
        assert server.says.startswith(answer.content[0].text.rstrip("�"))


def test_the_stream_says_what_the_whole_answer_says(ask: Callable[..., Any]) -> None:
    fields = {"extra_body": {"temperature": 0, "seed": 1}}
    whole, events = ask(**fields), list(ask(stream=True, **fields))
    text = "".join(event.delta.text for event in events if event.type == "content_block_delta")
    assert text == "".join(block.text for block in whole.content)
    assert (events[0].type, events[-2].type, events[-1].type) == ("message_start", "message_delta", "message_stop")
    assert events[-2].delta.stop_reason == whole.stop_reason
    assert events[-2].usage.output_tokens == whole.usage.output_tokens


def test_a_system_prompt_and_every_kind_of_turn(ask: Callable[..., Any]) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}
    answer = ask(
        USER,
        {"role": "system", "content": "Be kind."},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "x"}, call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "4"}]},
        {"role": "assistant", "content": "Four."},
        {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "text", "text": "now?"}]},
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        metadata={"user_id": "me"},
        output_config={"effort": "low"},
    )
    assert answer.stop_reason in {"end_turn", "max_tokens"}


def test_a_prompt_may_only_be_computed_and_is_in_the_cache_then(ask: Callable[..., Any], server: Server) -> None:
    asked = {"role": "user", "content": "Word by word. " * 40}
    answer = ask(asked, max_tokens=0)
    assert (answer.content, answer.stop_reason, answer.usage.output_tokens) == ([], "max_tokens", 0)
    if server.says is None:
        assert ask(asked).usage.cache_read_input_tokens > 0.9 * answer.usage.input_tokens


def test_tokens_are_counted_as_the_answers_usage_counts_them(ask: Callable[..., Any], server: Server) -> None:
    system: Any = [{"type": "text", "text": "Be brief."}]
    answer = ask(USER, system=system)
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=30) as client:
        count = client.messages.count_tokens(model=server.model, messages=[USER], system=system)
        assert count.input_tokens == answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
        long = client.messages.count_tokens(model=server.model, messages=[{"role": "user", "content": "word " * 9000}])
        assert long.input_tokens > 9000
        with pytest.raises(anthropic.BadRequestError, match="messages"):
            client.messages.count_tokens(model=server.model, messages=[])


def test_an_answer_goes_on_with_what_it_was_given(ask: Callable[..., Any]) -> None:
    assert ask(USER, {"role": "assistant", "content": "Once upon"}).role == "assistant"


def test_failures_are_the_sdks_own(ask: Callable[..., Any], server: Server) -> None:
    with pytest.raises(anthropic.BadRequestError, match=r"tools\.0\.type") as refused:
        ask(tools=[{"type": "web_search_20250305", "name": "web_search"}])
    assert refused.value.body["error"]["type"] == "invalid_request_error"
    assert refused.value.request_id == refused.value.body["request_id"]
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        with pytest.raises(anthropic.NotFoundError, match="GET /v1/models"):
            client.messages.create(model="nothing", max_tokens=1, messages=[USER])
        with pytest.raises(anthropic.NotFoundError, match="Unknown request URL"):
            client.post("/v1/nothing", cast_to=object)


def test_a_prompt_that_is_too_long_is_told_as_clients_know_it(ask: Callable[..., Any]) -> None:
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        ask({"role": "user", "content": "word " * 20000})


def test_a_tool_is_called_and_its_result_read(caller: anthropic.Anthropic) -> None:
    fields = {"model": "org/tiny", "max_tokens": 500, "tools": [WEATHER], "thinking": ADAPTIVE}
    first = caller.messages.create(messages=[USER], **fields)
    thought, call = first.content
    assert (thought.type, thought.thinking, call.type, call.name) == ("thinking", THOUGHT, "tool_use", "get_weather")
    assert (call.input, first.stop_reason) == ({"city": "Paris"}, "tool_use")
    assert first.usage.output_tokens_details.thinking_tokens > 0
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "12 degrees"}
    turns = [USER, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = caller.messages.create(messages=turns, **fields)
    assert second.content[-1].text == "The answer is: 12 degrees"
    assert second.stop_reason == "end_turn"


@pytest.mark.parametrize("display", ["summarized", "omitted"])
def test_the_sdks_stream_helper_gathers_thoughts_and_calls(caller: anthropic.Anthropic, display: str) -> None:
    fields: dict[str, Any] = {"model": "org/tiny", "max_tokens": 500, "tools": [WEATHER]}
    with caller.messages.stream(messages=[USER], thinking=ADAPTIVE | {"display": display}, **fields) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_message()
    assert {"thinking", "input_json"} - ({"thinking"} if display == "omitted" else set()) <= kinds
    thought, call = final.content
    assert thought.thinking == ("" if display == "omitted" else THOUGHT)
    assert thought.signature
    assert (call.input, final.stop_reason) == ({"city": "Paris"}, "tool_use")


def test_who_asks_for_no_thoughts_gets_the_text_first(caller: anthropic.Anthropic) -> None:
    answer = caller.messages.create(model="org/tiny", max_tokens=500, messages=[USER])
    assert [block.text for block in answer.content] == ["No tools."]


def test_tools_count(caller: anthropic.Anthropic) -> None:
    plain, with_tools = (
        caller.messages.count_tokens(model="org/tiny", messages=[USER], **fields).input_tokens
        for fields in cast("tuple[dict[str, Any], ...]", ({}, {"tools": [WEATHER]}))
    )
    assert with_tools > plain


def test_a_stop_sequence_is_named(caller: anthropic.Anthropic) -> None:
    answer = caller.messages.create(model="org/tiny", max_tokens=500, messages=[USER], stop_sequences=["tools", "x"])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "tools")
    assert answer.content[0].text == "No "


def test_the_sdks_tool_runner_makes_the_whole_loop(caller: anthropic.Anthropic) -> None:
    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"12 degrees in {city}"

    runner = caller.beta.messages.tool_runner(
        model="org/tiny", max_tokens=500, messages=[USER], tools=[get_weather], thinking=ADAPTIVE
    )
    assert runner.until_done().content[-1].text == "The answer is: 12 degrees in Paris"


def test_models_are_listed_and_looked_at_as_anthropic_does(server: Server) -> None:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=30) as client:
        ids = [model.id for model in client.models.list()]
        assert server.model in ids
        assert [model.id for model in client.models.list(limit=1)] == ids
        assert [model.id for model in client.models.list(before_id=ids[-1], limit=1).data] == ids[-2:-1]
        one = client.models.retrieve(server.model)
        assert (one.id, one.type, one.display_name) == (server.model, "model", server.model)
        assert one.created_at.tzinfo is not None
        assert server.says is not None or (one.max_input_tokens or 0) > 0
        for fields in ({"limit": 0}, {"after_id": "nothing"}, {"extra_query": {"limit": "x"}}):
            with pytest.raises(anthropic.BadRequestError):
                client.models.list(**fields)
        with pytest.raises(anthropic.NotFoundError):
            client.models.retrieve("nothing")


def test_somebody_who_looks_whether_the_service_is_there_sees_it(server: Server) -> None:
    with anthropic.DefaultHttpxClient(base_url=server.url) as http:
        assert http.head("/").status_code == 200
