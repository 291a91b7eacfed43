"""``/v1/responses`` as the OpenAI SDK sees it."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import openai
import pytest
from openai import OpenAI
from openai.types.responses.response import Response
from pydantic import BaseModel, Field

from tests.contract.conftest import Server
from tests.support.calling import THOUGHT, guided, scripted_caller
from tests.support.process import Service, service
from tests.support.tiny import make_tiny

SETTINGS: Any = {"temperature": 0, "max_output_tokens": 12}
LINES = """
start: line~1..3
line: "\\"" /[a-z]{1,3}/ "\\"" LF
%import common.LF
"""
CITIES = ["Paris", "Rome"]
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}


@pytest.fixture
def ask(client: openai.OpenAI, server: Server) -> Callable[..., Any]:
    return lambda said="Say hello.", **fields: client.responses.create(
        model=server.model, **{"input": said, **SETTINGS, **fields}
    )


def test_a_whole_response(ask: Callable[..., Any], server: Server) -> None:
    answer = ask(metadata={"a": "b"}, instructions="Be brief.")
    assert (answer.object, answer.model, answer.metadata, answer.error) == ("response", server.model, {"a": "b"}, None)
    assert answer.id.startswith("resp_")
    assert answer.instructions == "Be brief."
    (message,) = answer.output
    assert (message.type, message.role) == ("message", "assistant")
    assert answer.usage.output_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    if answer.status == "incomplete":
        assert (answer.incomplete_details.reason, message.status) == ("max_output_tokens", "incomplete")
    else:
        assert (answer.status, message.status) == ("completed", "completed")
    if server.says:
        assert server.says.startswith(answer.output_text.removesuffix("�"))


def test_the_stream_says_what_the_whole_response_says(ask: Callable[..., Any]) -> None:
    whole = ask(store=False)
    told = list(ask(stream=True))
    assert [it.sequence_number for it in told] == list(range(len(told)))
    assert "".join(it.delta for it in told if it.type == "response.output_text.delta") == whole.output_text
    last = told[-1]
    assert last.type in {"response.completed", "response.incomplete"}
    assert last.response.output_text == whole.output_text
    assert last.response.usage.output_tokens == whole.usage.output_tokens


def test_the_sdks_own_stream_helper_understands(client: openai.OpenAI, server: Server) -> None:
    with client.responses.stream(model=server.model, input="Say hello.", **SETTINGS) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response() if kinds[-1] == "response.completed" else None
    assert {"response.created", "response.output_text.delta", "response.output_item.done"} <= set(kinds)
    assert final is None or final.output_text


def test_what_is_kept_is_retrieved_continued_and_deleted(client: openai.OpenAI, ask: Callable[..., Any]) -> None:
    first = ask("My name is Ann.")
    assert client.responses.retrieve(first.id) == first
    items = client.responses.input_items.list(first.id)
    assert [it.content[0].text for it in items.data] == ["My name is Ann."]
    second = ask("What is my name?", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.input_tokens
    counted = client.responses.input_tokens.count(
        model=second.model, input="What is my name?", previous_response_id=first.id
    )
    assert counted.input_tokens == second.usage.input_tokens
    client.responses.delete(first.id)
    for gone in (lambda: client.responses.retrieve(first.id), lambda: ask("Hi", previous_response_id=first.id)):
        with pytest.raises(openai.NotFoundError) as missing:
            gone()
        assert missing.value.code in {"response_not_found", "previous_response_not_found"}
    assert ask("And now?", previous_response_id=second.id).usage.input_tokens > second.usage.input_tokens


def test_what_is_referred_to_is_what_was_answered(ask: Callable[..., Any]) -> None:
    first = ask("One.")
    answered = first.output[0].to_dict()
    told = ask([{"role": "user", "content": "One."}, answered, {"role": "user", "content": "Two."}])
    referred = ask(
        [
            {"role": "user", "content": "One."},
            {"type": "item_reference", "id": first.output[0].id},
            {"role": "user", "content": "Two."},
        ]
    )
    assert referred.usage.input_tokens == told.usage.input_tokens
    assert referred.output_text == told.output_text


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities(ask: Callable[..., Any], stream: bool) -> None:
    fields = {"top_logprobs": 2, "include": ["message.output_text.logprobs"], "stream": stream}
    if stream:
        told = list(ask(**fields))
        tokens = [token for it in told if it.type == "response.output_text.delta" for token in it.logprobs]
        answer = told[-1].response
    else:
        answer = ask(**fields)
        tokens = answer.output[0].content[0].logprobs
    assert len(tokens) == len(answer.output[0].content[0].logprobs) == answer.usage.output_tokens
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)


def test_what_is_not_offered_is_refused_by_name(ask: Callable[..., Any]) -> None:
    image = {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"input": [image]}, "input.0.content.0"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"input": "x" * 300_000}, "input"),
    ]
    for fields, param in cases:
        with pytest.raises(openai.BadRequestError) as refused:
            ask(**fields)
        assert refused.value.param == param, fields


def test_harmless_fields_are_accepted(ask: Callable[..., Any]) -> None:
    assert (
        ask(
            service_tier="auto",
            safety_identifier="me",
            user="me",
            prompt_cache_key="k",
            max_tool_calls=3,
            truncation="disabled",
            stream_options=None,
            background=False,
            text={},
            extra_body={"unknown_to_everybody": 1, "client_metadata": {"a": 1}, "keep_alive": "5m"},
        ).output_text
        is not None
    )


class Guest(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)


@pytest.fixture(scope="module")
def mlx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    with guided(tmp_path_factory.mktemp("guided")) as url, openai.OpenAI(base_url=url, api_key="none") as made:
        yield made


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    with scripted_caller(tmp_path_factory.mktemp("caller")) as url, openai.OpenAI(base_url=url, api_key="none") as made:
        yield made


def test_an_answer_is_parsed_into_a_model(mlx: OpenAI) -> None:
    parsed = mlx.responses.parse(model="tiny", input="Invent a guest.", text_format=Guest, temperature=1.2)
    assert isinstance(parsed.output_parsed, Guest)
    with mlx.responses.stream(model="tiny", input="Invent a guest.", text_format=Guest, temperature=1.2) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_response().output_parsed, Guest)


def test_a_named_function_is_called_and_a_custom_tool_takes_text(mlx: OpenAI) -> None:
    answer = mlx.responses.create(
        model="tiny",
        input="Weather?",
        tools=cast("Any", [WEATHER | {"parameters": {"type": "object", "properties": {"city": {"enum": CITIES}}}}]),
        tool_choice={"type": "function", "name": "get_weather"},
        temperature=1.2,
    )
    (call,) = [it for it in answer.output if it.type == "function_call"]
    assert json.loads(call.arguments).get("city") in {"Paris", "Rome", None}
    answer = mlx.responses.create(
        model="tiny",
        input="Edit.",
        tools=[
            {"type": "custom", "name": "patch", "format": {"type": "grammar", "syntax": "lark", "definition": LINES}}
        ],
        tool_choice={"type": "custom", "name": "patch"},
        temperature=1.2,
    )
    (patch,) = [it for it in answer.output if it.type == "custom_tool_call"]
    assert patch.name == "patch"
    assert re.fullmatch(r'("[a-z]{1,3}"\n){1,3}', patch.input), "held to its grammar, through all quoting"


@pytest.mark.parametrize("stateful", [True, False])
def test_a_loop_of_two_steps_with_thoughts_and_a_function_of_a_namespace(caller: OpenAI, stateful: bool) -> None:
    space = {"type": "namespace", "name": "ns", "description": "Weather.", "tools": [WEATHER]}
    fields: dict[str, Any] = {
        "model": "org/tiny",
        "tools": [WEATHER, space],
        "reasoning": {"summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "store": stateful,
    }
    question: Any = {"role": "user", "content": "Weather in Paris?"}
    with caller.responses.stream(input=[question], **fields) as stream:
        kinds = [event.type for event in stream]
        first = stream.get_final_response()
    assert kinds.index("response.reasoning_summary_text.done") < kinds.index("response.function_call_arguments.done")
    thought: Any
    call: Any
    thought, call = first.output
    assert thought.summary[0].text == thought.content[0].text == THOUGHT
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees"}
    if stateful:
        second = caller.responses.create(input=[result], previous_response_id=first.id, **fields)
    else:
        thought.content, thought.summary = None, []
        sent: list[Any] = [it.to_dict() for it in first.output]
        second = caller.responses.create(input=[question, *sent, result], **fields)
    assert second.output_text == "The answer is: 12 degrees"


def test_what_is_kept_in_a_file_survives_the_service(tmp_path: Path) -> None:
    make_tiny(tmp_path / "models" / "tiny", seed=0)
    flags = ("--offline", "--model-root", str(tmp_path / "models"), "--response-file", str(tmp_path / "responses.db"))

    def ask(running: Service, **fields: Any) -> Response:
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none") as client:
            return client.responses.create(model="tiny", temperature=0, max_output_tokens=4, **fields)

    with service(*flags, HF_HOME=str(tmp_path / "hf")) as running:
        first = ask(running, input="One.")
    with service(*flags, HF_HOME=str(tmp_path / "hf")) as running:
        second = ask(running, input="Two.", previous_response_id=first.id)
    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens
