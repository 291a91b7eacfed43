"""What a chat job asks of the engine, and how its answers are read: thoughts, tools, forms."""

import json
from typing import Any

import pytest

from app.engine.grammar import Grammar
from app.engine.text import Marks
from app.errors import InvalidRequest
from app.generation import forms
from app.generation.events import Delta, Finished, ToolCallArguments, ToolCallStarted
from app.generation.job import ChatJob, Decoding, ToolUse
from app.generation.tools.toolbox import Tool
from app.schemas.messages import (
    AssistantMessage,
    FunctionCall,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from app.schemas.sampling import Sampling
from tests.generation.test_strategy import run
from tests.support.scripted import BOS, ByteTokenizer, ScriptedEngine, says

THINK = Marks("<think>", "</think>")
WEATHER = Tool("get_weather", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
CLOCK = Tool("now", {"type": "object", "properties": {}})
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
HELLO = (UserMessage("Hi"),)
OBJECT = Grammar("json_object")


def engine(
    *texts: str,
    thinking: Marks | None = None,
    call_format: str | None = "json_tools",
    takes_tools: bool = True,
    answer_marks: tuple[str, ...] = (),
) -> ScriptedEngine:
    tokenizer = ByteTokenizer(
        template_takes_tools=takes_tools, thinking=thinking, call_format=call_format, answer_marks=answer_marks
    )
    return ScriptedEngine(says(*texts), tokenizer=tokenizer)


def job(
    *,
    grammar: Grammar | None = None,
    stop: tuple[str, ...] = (),
    logprobs: int | None = None,
    max_tokens: int = 400,
    messages: tuple[Any, ...] = HELLO,
    **more: Any,
) -> ChatJob:
    decoding = Decoding(sampling=Sampling(), max_tokens=max_tokens, grammar=grammar, stop=stop, logprobs=logprobs)
    return ChatJob(decoding=decoding, messages=messages, **more)


def use(*tools: Tool, **more: Any) -> ToolUse:
    return ToolUse(tools=tools or (WEATHER, CLOCK), **more)


def joined(events: list[Any]) -> tuple[str, str, list[list[str]], str]:
    """Thoughts, text, calls and the end of choice 0."""
    deltas = [it for it in events if isinstance(it, Delta)]
    calls = [[it.name, ""] for it in events if isinstance(it, ToolCallStarted)]
    for it in events:
        if isinstance(it, ToolCallArguments):
            calls[it.call][1] += it.text
    [end] = [it.reason for it in events if isinstance(it, Finished)]
    return "".join(it.reasoning for it in deltas), "".join(it.text for it in deltas), calls, end


async def test_thoughts_are_told_apart_and_counted() -> None:
    events, _ = await run(job(), engine("<think>\nHm.\n</think>\n\nYes.", thinking=THINK))
    assert joined(events) == ("Hm.", "Yes.", [], "stop")
    details = events[-1].usage.completion_tokens_details
    assert details.reasoning_tokens == len("<think>\nHm.\n</think>")


async def test_a_thought_that_the_template_opens() -> None:
    opened = job(variables={"open": True})
    events, _ = await run(opened, engine("Hm.</think>Yes.", thinking=THINK))
    assert joined(events) == ("Hm.", "Yes.", [], "stop")


async def test_what_one_model_calls_a_thought_is_text_to_another() -> None:
    events, _ = await run(job(), engine("<think>Hm.</think>Yes."))
    assert joined(events)[:2] == ("", "<think>Hm.</think>Yes.")


async def test_stop_strings_and_log_probabilities_belong_to_the_answer_alone() -> None:
    said = engine("<think>no END here</think>\nYes END no", thinking=THINK)
    events, _ = await run(job(stop=("END",), logprobs=0), said)
    assert joined(events) == ("no END here", "Yes ", [], "stop")
    scored = [it.text for event in events if isinstance(event, Delta) for it in event.logprobs]
    assert "".join(scored) == "Yes "


async def test_the_engine_is_told_where_thoughts_end_only_if_something_begins_there() -> None:
    plain, guided, budget = (engine("x", thinking=THINK) for _ in range(3))
    await run(job(), plain)
    await run(job(grammar=OBJECT), guided)
    await run(job(thinking_budget=7, variables={"open": True}), budget)
    assert plain.submitted[0].thoughts is None
    assert bytes(guided.submitted[0].thoughts.start) == b"<think>"
    assert not guided.submitted[0].thoughts.open
    asked = budget.submitted[0].thoughts
    assert (asked.open, asked.budget, bytes(asked.end)) == (True, 7, b"</think>")


async def test_a_call_ends_the_answer_with_its_reason() -> None:
    said = engine(f"<think>a</think>Look: {CALL}", thinking=THINK)
    events, _ = await run(job(tools=use()), said)
    assert joined(events) == ("a", "Look:", [["get_weather", '{"city": "Paris"}']], "tool_calls")
    prompt = bytes(it for it in said.submitted[0].prompt if it < BOS).decode()
    assert prompt.startswith("<tools>get_weather now")


async def test_a_call_that_is_cut_off_ends_by_length() -> None:
    events, _ = await run(job(tools=use(), max_tokens=60), engine(CALL))
    assert joined(events)[2:] == ([["get_weather", '{"city": "P']], "length")


@pytest.mark.parametrize(
    ("asked", "answer", "trigger", "once"),
    [
        (use(), None, "<tool_call>", False),
        (use(parallel=False), None, "<tool_call>", True),
        (use(required=True), None, "", False),
        (use(named="now"), None, "", False),
        (use(), OBJECT, "", False),
        (use(), Grammar("json_schema", '{"type": "object"}'), "", False),
        (use(), Grammar("choice", '["a", "b"]'), "", False),
        (use(), Grammar("regex", "a/b"), "", False),
    ],
)
async def test_what_holds_the_answer(asked: ToolUse, answer: Grammar | None, trigger: str, once: bool) -> None:
    said = engine("x")
    await run(job(tools=asked, grammar=answer), said)
    grammar = said.submitted[0].grammar
    assert (grammar.kind, grammar.trigger, grammar.once) == ("lark", trigger, once)
    assert ("get_weather" in grammar.source) == (asked.named is None)
    assert said.prepared == [grammar]


async def test_llama_3_has_no_mark_to_wait_for() -> None:
    said = engine("x", call_format="llama3_json")
    await run(job(tools=use()), said)
    assert said.submitted[0].grammar.trigger == ""
    assert "[^{" in said.submitted[0].grammar.source


async def test_functions_that_cannot_be_enforced_are_refused_only_where_they_must_be() -> None:
    refused = Tool("refused", {"type": "object"})
    said = engine("x")
    await run(job(tools=use(refused)), said)
    assert said.submitted[0].grammar is None
    for asked in (
        use(refused, required=True),
        use(refused, named="refused"),
        use(Tool("refused", {"type": "object"}, strict=True)),
    ):
        with pytest.raises(InvalidRequest) as told:
            await run(job(tools=asked), engine("x"))
        assert told.value.param == "tools"


@pytest.mark.parametrize("options", [{"takes_tools": False}, {"call_format": None}])
async def test_models_without_tools_are_told_of_them_unless_that_is_to_be_refused(options: dict[str, Any]) -> None:
    said = engine(CALL, **options)
    events, _ = await run(job(tools=use()), said)
    assert joined(events)[2:] == ([["get_weather", '{"city": "Paris"}']], "tool_calls")
    with pytest.raises(InvalidRequest, match="tool_prompt") as refused:
        await run(job(tools=use(prompt="refuse")), engine("x", **options))
    assert refused.value.param == "tools"


async def test_a_template_that_knows_tools_is_passed_over_where_the_settings_say_so() -> None:
    said = engine(CALL)
    await run(job(tools=use(prompt="generic")), said)
    assert bytes(it for it in said.submitted[0].prompt if it < BOS).decode().startswith("<system>You can call")


async def test_a_grammar_cannot_stand_beside_tools() -> None:
    with pytest.raises(InvalidRequest) as refused:
        await run(job(tools=use(), grammar=Grammar("lark", "start: /a/", param="guided_grammar")), engine("x"))
    assert refused.value.param == "guided_grammar"


async def test_a_generic_prompt_tells_of_functions_calls_and_results() -> None:
    said = engine(CALL, takes_tools=False, call_format=None)
    messages = (
        SystemMessage("Be brief."),
        UserMessage("Weather?"),
        AssistantMessage(None, tool_calls=[ToolCall("1", FunctionCall("get_weather", '{"city": "Rome"}'))]),
        ToolMessage("12 degrees", "1"),
    )
    events, _ = await run(job(tools=use(), messages=messages), said)
    assert joined(events)[2:] == ([["get_weather", '{"city": "Paris"}']], "tool_calls")
    prompt = bytes(it for it in said.submitted[0].prompt if it < BOS).decode()
    assert prompt.startswith("<system>Be brief.")
    assert '{"name": "get_weather", "parameters"' in prompt
    assert '<assistant><tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}' in prompt
    assert "<user><tool_response>\n12 degrees\n</tool_response>" in prompt


async def test_a_form_reaches_the_engine_as_it_was_asked_for() -> None:
    said = engine(json.dumps({"a": 1}))
    events, _ = await run(job(grammar=OBJECT), said)
    assert said.submitted[0].grammar == OBJECT
    assert joined(events)[1] == '{"a": 1}'


@pytest.mark.parametrize("tools", [None, use()])
@pytest.mark.parametrize("said", ["<r>Hello.</r>", "Hello.", "<r>\nHello."])
async def test_marks_around_an_answer_are_no_part_of_it(tools: ToolUse | None, said: str) -> None:
    events, _ = await run(job(tools=tools), engine(said, answer_marks=("<r>", "</r>")))
    assert joined(events)[1:] == ("Hello." if said != "<r>\nHello." else "\nHello.", [], "stop")


async def test_functions_that_are_too_many_to_look_at_are_unenforced_without_a_wait_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forms, "PATIENCE", -1.0)
    said = engine("x")
    many = tuple(Tool(f"refused_{n}", {"type": "object"}) for n in range(50))
    await run(job(tools=use(*many)), said)
    assert len(said.prepared) == 2
    with pytest.raises(InvalidRequest, match="too long"):
        await run(job(tools=use(Tool("refused", {"type": "object"}, strict=True))), engine("x"))
