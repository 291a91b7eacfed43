"""What a response request becomes: items as messages, tools as functions, settings as a job."""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.read import responses as reader
from app.api.read.response_items import Placed, said
from app.api.read.response_tools import Called
from app.api.seal import Seal
from app.engine.grammar import Grammar
from app.errors import InvalidRequest
from app.schemas.messages import (
    AssistantMessage,
    DeveloperMessage,
    FunctionCall,
    RefusalPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from app.schemas.responses import ResponseRequest
from app.settings import ModelEntry

SEAL = Seal()
UNSET = ModelEntry()
F = {"type": "function", "name": "f", "description": "Does.", "parameters": {"type": "object", "properties": {}}}
CUSTOM = {"type": "custom", "name": "patch", "description": "Edits."}
SPACE = {"type": "namespace", "name": "ns", "description": "More.", "tools": [F, {**CUSTOM, "name": "f2"}]}
WEB = {"type": "web_search"}
GRAMMAR = {"type": "grammar", "syntax": "lark"}


def read(entry: ModelEntry = UNSET, **fields: Any) -> reader.Reading:
    request = msgspec.convert({"input": "Hi", **fields}, ResponseRequest)
    items = request.input if isinstance(request.input, list) else reader._sent(request)
    return reader.read(request, [Placed(it, f"input.{at}") for at, it in enumerate(items)], SEAL, entry)


def messages(*items: dict[str, Any]) -> list[Any]:
    return list(said([Placed(it, f"input.{at}") for at, it in enumerate(items)], SEAL).messages)


def test_a_text_is_what_the_user_says_and_instructions_come_first() -> None:
    assert read(instructions="Be brief.").job.messages == (SystemMessage("Be brief."), UserMessage([TextPart("Hi")]))


def test_every_kind_of_message() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "text", "text": "b"}]
    assert messages(
        {"role": "developer", "content": "d"},
        {"type": "message", "role": "system", "content": parts, "id": "msg_1", "status": None},
        {"type": None, "role": "user", "content": []},
        {"role": "assistant", "content": [{"type": "output_text", "text": "c", "annotations": [], "logprobs": []}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}], "phase": "final_answer"},
    ) == [
        DeveloperMessage("d"),
        SystemMessage([TextPart("a"), TextPart("b")]),
        UserMessage([]),
        AssistantMessage([TextPart("c")]),
        AssistantMessage([RefusalPart("No.")]),
    ]


def test_thoughts_text_and_calls_that_follow_each_other_are_one_turn() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    call = {
        "type": "function_call",
        "call_id": "1",
        "name": "f",
        "arguments": "{}",
        "id": "fc_1",
        "status": "completed",
    }
    assert messages(
        thought,
        {"role": "assistant", "content": "Let me see."},
        call,
        {**call, "call_id": "2", "namespace": "ns"},
        {"type": "function_call_output", "call_id": "1", "output": "one"},
        {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "two"}]},
        thought,
        {"type": "custom_tool_call", "call_id": "3", "name": "patch", "input": 'a"b\n'},
        {"type": "custom_tool_call_output", "call_id": "3", "output": "done"},
        {"role": "assistant", "content": "Well."},
        thought,
        {"role": "user", "content": "?"},
    ) == [
        AssistantMessage(
            "Let me see.",
            reasoning_content="hm",
            tool_calls=[ToolCall("1", FunctionCall("f", "{}")), ToolCall("2", FunctionCall("ns__f", "{}"))],
        ),
        ToolMessage("one", "1"),
        ToolMessage([TextPart("two")], "2"),
        AssistantMessage(
            None,
            reasoning_content="hm",
            tool_calls=[ToolCall("3", FunctionCall("patch", json.dumps({"input": 'a"b\n'}, separators=(",", ":"))))],
        ),
        ToolMessage("done", "3"),
        AssistantMessage("Well."),
        UserMessage("?"),
    ]


@pytest.mark.parametrize(
    ("fields", "thought"),
    [
        ({"content": [{"type": "reasoning_text", "text": "a"}, {"text": "b"}]}, "a\n\nb"),
        ({"content": None, "summary": [{"type": "summary_text", "text": "s"}]}, "s"),
        ({"encrypted_content": SEAL.sign("sealed"), "summary": [{"type": "summary_text", "text": "s"}]}, "sealed"),
        ({"encrypted_content": Seal().sign("foreign"), "summary": [{"text": "s"}]}, "s"),
        ({"encrypted_content": "gAAAA"}, None),
        ({}, None),
    ],
)
def test_a_thought_is_read_from_whatever_tells_it(fields: dict[str, Any], thought: str | None) -> None:
    item = {"type": "reasoning", "summary": [], **fields}
    (turn,) = messages(item, {"role": "assistant", "content": "x"})
    assert turn.reasoning_content == thought


def test_what_an_answer_does_without_is_named() -> None:
    reading = read(
        tools=[F, WEB, {"type": "unheard_of"}],
        input=[
            {"role": "user", "content": "x"},
            {"type": "web_search_call", "id": "ws_1"},
            {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"},
        ],
    )
    assert reading.skipped == (
        "tools.1 (web_search)",
        "tools.2 (unheard_of)",
        "input.1 (web_search_call)",
        "input.2.encrypted_content",
    )


def test_every_kind_of_tool_is_a_function_to_the_model_and_told_as_it_was_sent() -> None:
    reading = read(tools=[F, SPACE, CUSTOM, {"type": "function", "name": "bare", "strict": True}])
    use = reading.job.tools
    assert [tool.name for tool in use.tools] == ["f", "ns__f", "ns__f2", "patch", "bare"]
    assert [tool.strict for tool in use.tools] == [False, False, False, False, True]
    assert use.tools[3].parameters["required"] == ["input"]
    assert reading.called == {
        "f": Called("f"),
        "ns__f": Called("f", "ns"),
        "ns__f2": Called("f2", "ns", custom=True),
        "patch": Called("patch", custom=True),
        "bare": Called("bare"),
    }


def test_a_custom_tool_is_told_and_held_to_its_grammar() -> None:
    lark = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"+'}
    regex = {"type": "grammar", "syntax": "regex", "definition": "^x+$"}
    tools = read(tools=[{**CUSTOM, "format": lark}, {**CUSTOM, "name": "other", "format": regex}]).job.tools.tools
    assert tools[0].description == 'Edits.\n\nThe text, input, follows this lark grammar:\nstart: "x"+'
    patterns = [tool.parameters["properties"]["input"]["pattern"] for tool in tools]
    assert all(re.fullmatch(pattern, "xx") and not re.search(pattern, "xy") for pattern in patterns)
    assert all(tool.strict for tool in tools), "what cannot be held is refused"


@pytest.mark.parametrize(
    ("choice", "required", "named", "told"),
    [
        ("auto", False, None, 5),
        ("required", True, None, 5),
        ({"type": "function", "name": "g"}, False, "g", 5),
        ({"type": "function", "name": "f"}, False, "f", 5),
        ({"type": "function", "name": "f", "namespace": "ns"}, False, "ns__f", 5),
        ({"type": "custom", "name": "f2"}, False, "ns__f2", 5),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]}, False, None, 1),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "custom", "name": "patch"}, {"type": "function", "name": "f"}, WEB],
            },
            True,
            None,
            2,
        ),
    ],
)
def test_tool_choice(choice: str | dict[str, Any], required: bool, named: str | None, told: int) -> None:
    use = read(tools=[F, SPACE, CUSTOM, {**F, "name": "g"}], tool_choice=choice).job.tools
    assert (use.required, use.named, len(use.tools)) == (required, named, told)
    assert use.parallel is (named is None)


def test_no_tools_may_be_called() -> None:
    assert read(tools=[F], tool_choice="none").job.tools is None
    assert read(tools=[WEB], tool_choice="none").job.tools is None
    assert read(tools=[]).job.tools is None
    assert not read(tools=[F], parallel_tool_calls=False).job.tools.parallel
    assert read(ModelEntry(tool_prompt="generic"), tools=[F]).job.tools.prompt == "generic"


def test_settings_of_the_answer() -> None:
    schema = {"type": "object", "properties": {"a": {}}}
    job = read(
        text={"format": {"type": "json_schema", "name": "n", "schema": schema}, "verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto"},
        max_output_tokens=7,
        temperature=0,
        truncation="auto",
        top_k=3,
        thinking_budget=9,
        chat_template_kwargs={"x": 1},
    ).job
    assert job.decoding.grammar == Grammar(
        "json_schema", msgspec.json.encode(schema).decode(), param="text.format.schema"
    )
    assert (job.decoding.max_tokens, job.decoding.sampling.temperature, job.decoding.sampling.top_k) == (7, 0, 3)
    assert job.variables == {"reasoning_effort": "low", "x": 1}
    assert (job.thinking_budget, job.field, job.truncated) == (9, "input", True)
    plain = read().job
    assert (plain.decoding.max_tokens, plain.decoding.grammar, plain.truncated) == (None, None, False)
    assert read(text={}).job.decoding.grammar is None
    assert read(text={"format": {"type": "text"}}).job.decoding.grammar is None
    assert read(text={"format": {"type": "json_object"}}).job.decoding.grammar == Grammar(
        "json_object", param="text.format"
    )
    assert read(ModelEntry(max_tokens=4)).job.decoding.max_tokens == 4
    assert read(ModelEntry(max_tokens=4), max_output_tokens=-1).job.decoding.max_tokens is None


@pytest.mark.parametrize(
    ("fields", "alternatives"),
    [
        ({}, None),
        ({"top_logprobs": 0}, None),
        ({"top_logprobs": 2}, 2),
        ({"include": ["message.output_text.logprobs"]}, 0),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 3}, 3),
        ({"include": ["file_search_call.results", "unheard.of"]}, None),
    ],
)
def test_log_probabilities(fields: dict[str, Any], alternatives: int | None) -> None:
    assert read(**fields).job.decoding.logprobs == alternatives


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [{"type": "shell_call"}]}, "input.0.type"),
        ({"input": [{"content": "x"}]}, "input.0.type"),
        ({"input": [{"role": "user", "content": "x"}, {"role": "robot", "content": "x"}]}, "input.1.role"),
        ({"input": [{"role": "user"}]}, "input.0.content"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input.0.content.0.text"),
        ({"input": [{"role": "user", "content": [{"type": "nothing"}]}]}, "input.0.content.0.type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": ""}, {"type": "input_image"}]}]},
            "input.0.content.1",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input.0.content.0"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input.0.content.0"),
        (
            {"input": [{"type": "function_call_output", "call_id": "1", "output": [{"type": "input_image"}]}]},
            "input.0.output.0",
        ),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input.0.call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]}, "input.0.call_id"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"tools": [WEB]}, "tools"),
        ({"tools": [WEB], "tool_choice": "required"}, "tools"),
        ({"tools": [F, F]}, "tools.1"),
        ({"tools": [SPACE, {**F, "name": "ns__f"}]}, "tools.1"),
        ({"tools": [F, {"type": "function"}]}, "tools.1.name"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [WEB]}]}, "tools.0.tools.0.type"),
        ({"tools": [F, {**CUSTOM, "format": {**GRAMMAR, "definition": "start: nothing"}}]}, "tools.1.format"),
        (
            {"tools": [{**SPACE, "tools": [F, {**CUSTOM, "format": {**GRAMMAR, "definition": ""}}]}]},
            "tools.0.tools.1.format",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "function", "name": "h"}}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "custom", "name": "f"}}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "function", "name": "f", "namespace": "x"}}, "tool_choice"),
        ({"tools": [F, WEB], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tools": [F, WEB], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [WEB]}}, "tool_choice"),
        ({"text": {"format": {"type": "json_object"}}, "guided_regex": "a"}, "guided_regex"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"n": 2}, "n"),
        ({"response_format": {"type": "text"}}, "response_format"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert refused.value.param == param


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=3)
    | st.sampled_from(["input_text", "x", "user", "auto"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "text", "name"]), inner),
    max_leaves=4,
)
KINDS = st.sampled_from(
    ["message", "reasoning", "function_call", "function_call_output", "custom_tool_call", "item_reference", "nothing"]
)
FIELDS = (
    "role",
    "content",
    "summary",
    "encrypted_content",
    "call_id",
    "name",
    "arguments",
    "output",
    "input",
    "namespace",
)
ITEMS = st.fixed_dictionaries({}, optional={"type": KINDS | VALUES, **dict.fromkeys(FIELDS, VALUES)})
TOOL_KINDS = st.sampled_from(["function", "custom", "namespace", "web_search"])
TOOL_FIELDS = ("name", "parameters", "strict", "description", "format", "tools")
TOOLS = st.fixed_dictionaries({}, optional={"type": TOOL_KINDS | VALUES, **dict.fromkeys(TOOL_FIELDS, VALUES)})


@settings(deadline=None)  # machines are slow at times
@given(st.lists(ITEMS, max_size=3), st.lists(TOOLS, max_size=2), VALUES)
def test_whatever_items_tools_and_choices_are_made_of_is_read_or_refused_by_name(
    items: list[dict[str, Any]], tools: list[dict[str, Any]], choice: list[dict[str, Any]] | dict[str, str] | None
) -> None:
    for fields in ({"input": items}, {"tools": tools}, {"tools": [F, *tools], "tool_choice": choice}):
        try:
            request = msgspec.convert({"input": "x", **fields}, ResponseRequest)
        except msgspec.ValidationError:
            continue
        sent = request.input if isinstance(request.input, list) else reader._sent(request)
        refused = None
        try:
            reader.read(request, [Placed(it, f"input.{at}") for at, it in enumerate(sent)], SEAL, UNSET)
        except InvalidRequest as failure:
            refused = failure.param
        assert refused is None or refused.partition(".")[0] in fields
