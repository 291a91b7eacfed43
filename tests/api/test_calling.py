"""What requests say of tools, of the answer's form and of thoughts, translated."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from app.engine.grammar import Grammar
from app.errors import InvalidRequest
from app.settings import ModelEntry
from tests.api.test_translate import chat, completion

SCHEMA = {"type": "object", "properties": {"z": {"type": "integer"}, "a": {}}}
F = {"name": "f", "description": "Does.", "parameters": SCHEMA, "strict": True}
TOOLS = [{"type": "function", "function": F}, {"type": "function", "function": {"name": "g"}}]


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize("ask", [chat, completion])
@pytest.mark.parametrize(
    ("fields", "grammar"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Grammar("json_object")),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
            Grammar(
                "json_schema", json.dumps(SCHEMA, separators=(",", ":")), param="response_format.json_schema.schema"
            ),
        ),
        ({"structured_outputs": {"json": True}}, Grammar("json_schema", "true", param="structured_outputs.json")),
        (
            {"structured_outputs": {"json": '{"type": "null"}'}},
            Grammar("json_schema", '{"type":"null"}', param="structured_outputs.json"),
        ),
        ({"structured_outputs": {"json_object": True}}, Grammar("json_object", param="structured_outputs.json_object")),
        ({"structured_outputs": {"regex": "a+"}}, Grammar("regex", "a+", param="structured_outputs.regex")),
        ({"structured_outputs": {"choice": ["é"]}}, Grammar("choice", '["é"]', param="structured_outputs.choice")),
        ({"structured_outputs": {"grammar": "x"}}, Grammar("lark", "x", param="structured_outputs.grammar")),
        ({"guided_json": {}}, Grammar("json_schema", "{}", param="guided_json")),
        ({"guided_regex": "a"}, Grammar("regex", "a", param="guided_regex")),
        ({"guided_choice": ["a"]}, Grammar("choice", '["a"]', param="guided_choice")),
        ({"guided_grammar": "x"}, Grammar("lark", "x", param="guided_grammar")),
    ],
)
def test_a_form(ask: Callable[..., Any], fields: dict[str, Any], grammar: Grammar | None) -> None:
    assert ask(**fields).decoding.grammar == grammar


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs.choice"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema.schema",
        ),
    ],
)
def test_a_form_that_cannot_be(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        completion(**fields)
    assert refused.value.param == param


def test_tools() -> None:
    use = chat(tools=TOOLS).tools
    assert [tool.name for tool in use.tools] == ["f", "g"]
    assert (use.tools[0].parameters, use.tools[0].strict, use.tools[1].strict) == (SCHEMA, True, False)
    assert list(use.tools[0].parameters["properties"]) == ["z", "a"]
    assert use.tools[1].parameters["properties"] == {}
    assert (use.required, use.named, use.parallel, use.prompt) == (False, None, True, None)


@pytest.mark.parametrize(
    ("fields", "required", "called", "parallel"),
    [
        ({"tool_choice": "auto"}, False, None, True),
        ({"tool_choice": "required", "parallel_tool_calls": False}, True, None, False),
        ({"tool_choice": named("g")}, False, "g", False),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named("g")]}}},
            True,
            None,
            True,
        ),
    ],
)
def test_tool_choice(fields: dict[str, Any], required: bool, called: str | None, parallel: bool) -> None:
    use = chat(tools=TOOLS, **fields).tools
    assert (use.required, use.named, use.parallel) == (required, called, parallel)
    assert len(use.tools) == (1 if "allowed_tools" in json.dumps(fields) else 2)


def test_none_and_no_tools_are_no_tools() -> None:
    assert chat(tools=TOOLS, tool_choice="none").tools is None
    assert chat(tools=[]).tools is None
    assert chat(tool_choice="auto").tools is None


def test_the_older_form_is_the_newer_one_with_one_call() -> None:
    use = chat(functions=[F], function_call={"name": "f"}).tools
    assert (use.named, use.parallel) == ("f", False)
    assert chat(functions=[F], function_call="none").tools is None


def test_a_generic_prompt_is_the_models_own_setting() -> None:
    assert chat(ModelEntry(tool_prompt="generic"), tools=TOOLS).tools.prompt == "generic"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"function_call": {"name": "f"}, "functions": []}, "function_call"),
        ({"tools": TOOLS, "tool_choice": named("h")}, "tool_choice"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools.1"),
        ({"tools": TOOLS, "functions": [F]}, "functions"),
    ],
)
def test_tools_that_cannot_be(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(**fields)
    assert refused.value.param == param


def test_thinking() -> None:
    assert chat(enable_thinking=False, thinking_budget=0).variables == {"enable_thinking": False}
    assert chat(thinking_budget=0).thinking_budget == 0
    assert chat(reasoning_effort="none").variables == {"reasoning_effort": "none", "enable_thinking": False}
    assert chat(reasoning_effort="low", enable_thinking=True).variables == {
        "reasoning_effort": "low",
        "enable_thinking": True,
    }
    assert chat(enable_thinking=True, chat_template_kwargs={"enable_thinking": False}).variables == {
        "enable_thinking": False
    }
