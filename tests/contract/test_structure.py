"""Answers in a form, tools and thoughts through OpenAI's own client and its helpers."""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import httpx2
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, Field

from tests.contract.conftest import Server
from tests.support.calling import THOUGHT, guided, scripted_caller

HOT: Any = {"temperature": 1.5, "seed": 5}
ASK: Any = [{"role": "user", "content": "Weather in Paris?"}]


class Guest(BaseModel, extra="forbid"):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)
    mood: Literal["calm", "cross"]


class GetWeather(BaseModel):
    """The weather of a city."""

    city: str = Field(max_length=10)
    days: int = Field(ge=1, le=7)


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def mlx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    with guided(tmp_path_factory.mktemp("guided")) as url:
        yield openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    with scripted_caller(tmp_path_factory.mktemp("caller")) as url:
        yield openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=30)


def test_parse_gives_the_model_that_was_asked_for(mlx: OpenAI) -> None:
    answer = mlx.chat.completions.parse(model="tiny", messages=ASK, response_format=Guest, n=2, **HOT)
    assert len(answer.choices) == 2
    for choice in answer.choices:
        assert isinstance(choice.message.parsed, Guest)
        assert choice.finish_reason == "stop"


def test_stream_gives_events_and_the_model_at_the_end(mlx: OpenAI) -> None:
    with mlx.chat.completions.stream(model="tiny", messages=ASK, response_format=Guest, **HOT) as stream:
        kinds = [event.type for event in stream]
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(parsed, Guest)
    assert kinds.count("content.delta") > 5
    assert kinds[-1] == "content.done" or "content.done" in kinds


def test_a_pydantic_tool_that_must_be_called_is_called_and_parsed(mlx: OpenAI) -> None:
    answer = mlx.chat.completions.parse(
        model="tiny",
        messages=ASK,
        tools=[openai.pydantic_function_tool(GetWeather)],
        tool_choice={"type": "function", "function": {"name": "GetWeather"}},
        **HOT,
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, GetWeather)
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None


def test_a_required_call_streams_its_arguments(mlx: OpenAI) -> None:
    with mlx.chat.completions.stream(
        model="tiny",
        messages=ASK,
        tools=[openai.pydantic_function_tool(GetWeather)],
        tool_choice="required",
        parallel_tool_calls=False,
        **HOT,
    ) as stream:
        deltas = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion().choices[0]
    assert len(deltas) > 3
    assert isinstance(final.message.tool_calls[0].function.parsed_arguments, GetWeather)


@pytest.mark.parametrize("stream", [False, True])
def test_legacy_completions_have_a_form_too(mlx: OpenAI, stream: bool) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "guest", "schema": Guest.model_json_schema()}}
    answer = mlx.completions.create(
        model="tiny", prompt="A guest:", max_tokens=400, stream=stream, extra_body={"response_format": schema}, **HOT
    )
    text = "".join(chunk.choices[0].text for chunk in answer) if stream else answer.choices[0].text
    Guest.model_validate_json(text)


@pytest.mark.parametrize(
    ("extra", "form"),
    [
        ({"structured_outputs": {"regex": r"[a-c]{5}-\d{2}"}}, r"[a-c]{5}-[0-9]{2}"),
        ({"structured_outputs": {"choice": ["left", "right"]}}, "left|right"),
        ({"structured_outputs": {"grammar": 'start: "<" /[0-9]{3}/ ">"'}}, "<[0-9]{3}>"),
        ({"guided_choice": ["left", "right"]}, "left|right"),
        ({"guided_regex": "[xyz]{9}"}, "[xyz]{9}"),
    ],
)
def test_extensions(mlx: OpenAI, extra: dict[str, Any], form: str) -> None:
    answer = mlx.chat.completions.create(model="tiny", messages=ASK, extra_body=extra, **HOT)
    assert re.fullmatch(form, answer.choices[0].message.content)


def test_the_embedded_model_extracts_what_a_text_says(mlx: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer"},
            "city": {"type": "string", "maxLength": 20},
        },
        "required": ["name", "age", "city"],
        "additionalProperties": False,
    }
    answer = mlx.chat.completions.create(
        model="smollm2",
        temperature=0,
        messages=[
            {
                "role": "user",
                "content": "Text: Anna Miller is 34 years old and lives in Berlin.\n"
                "Give the name, the age and the city of the person as JSON.",
            }
        ],
        response_format={"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}},
    )
    person = json.loads(answer.choices[0].message.content or "")
    assert person["age"] == 34
    assert "Anna" in person["name"]
    assert person["city"] == "Berlin"


def test_a_schema_that_cannot_be_enforced_is_a_400_that_names_the_place(mlx: OpenAI) -> None:
    schema: Any = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(openai.BadRequestError) as refused:
        mlx.chat.completions.create(
            model="tiny",
            messages=ASK,
            response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        )
    assert refused.value.param == "response_format.json_schema.schema.properties.a.uniqueItems"
    assert "uniqueItems" in refused.value.message


def test_two_forms_at_once_are_a_400(mlx: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        mlx.chat.completions.create(
            model="tiny",
            messages=ASK,
            response_format={"type": "json_object"},
            extra_body={"guided_regex": "a"},
        )
    assert refused.value.param == "guided_regex"


def test_a_two_step_loop_with_thoughts(caller: OpenAI) -> None:
    first = caller.chat.completions.create(model="org/tiny", messages=ASK, tools=[WEATHER])
    message: Any = first.choices[0].message
    assert (message.content, first.choices[0].finish_reason) == (None, "tool_calls")
    assert message.reasoning_content == THOUGHT
    assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Paris"}
    assert first.usage.completion_tokens_details.reasoning_tokens == len(f"<think>\n{THOUGHT}\n</think>")
    result: Any = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "12 degrees"}
    second = caller.chat.completions.create(
        model="org/tiny", messages=[*ASK, message.model_dump(exclude_none=True), result], tools=[WEATHER]
    )
    assert second.choices[0].message.content == "The answer is: 12 degrees"
    assert second.choices[0].finish_reason == "stop"


def test_no_tools_when_none_may_be_called(caller: OpenAI) -> None:
    answer = caller.chat.completions.create(model="org/tiny", messages=ASK, tools=[WEATHER], tool_choice="none")
    assert answer.choices[0].message.content == "No tools."
    assert answer.choices[0].message.tool_calls is None


@pytest.mark.parametrize("stream", [False, True])
def test_the_older_form_is_answered_in_the_older_form(caller: OpenAI, stream: bool) -> None:
    answer = caller.chat.completions.create(
        model="org/tiny", messages=ASK, functions=[WEATHER["function"]], function_call="auto", stream=stream
    )
    if not stream:
        assert answer.choices[0].finish_reason == "function_call"
        assert answer.choices[0].message.function_call.name == "get_weather"
        assert answer.choices[0].message.tool_calls is None
        return
    chunks = [chunk.choices[0] for chunk in answer]
    calls = [chunk.delta.function_call for chunk in chunks if chunk.delta.function_call is not None]
    assert calls[0].name == "get_weather"
    assert json.loads("".join(call.arguments or "" for call in calls)) == {"city": "Paris"}
    assert chunks[-1].finish_reason == "function_call"


def test_a_streamed_call_on_the_wire(caller: OpenAI) -> None:
    body = {"model": "org/tiny", "messages": ASK, "tools": [WEATHER], "stream": True}
    with httpx2.stream("POST", f"{caller.base_url}chat/completions", json=body) as answer:
        frames = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert frames.pop() == "[DONE]"
    deltas = [json.loads(frame)["choices"][0] for frame in frames]
    assert not any("<" in (it["delta"].get("content") or "") for it in deltas)
    assert "".join(it["delta"].get("reasoning_content", "") for it in deltas) == THOUGHT
    calls = [call for it in deltas for call in it["delta"].get("tool_calls", ())]
    assert calls[0].keys() == {"index", "id", "type", "function"}
    assert calls[0]["function"] == {"name": "get_weather", "arguments": ""}
    assert all(call.keys() == {"index", "function"} for call in calls[1:])
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"city": "Paris"}
    assert deltas[-1]["finish_reason"] == "tool_calls"


def test_a_model_whose_template_knows_no_tools_can_be_made_to_call_them(real: Server) -> None:
    with openai.OpenAI(base_url=real.base_url, api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(
            model="tiny-a", messages=ASK, tools=[WEATHER], tool_choice="required", max_tokens=200
        )
    assert answer.choices[0].message.tool_calls[0].function.name == WEATHER["function"]["name"]
