"""gpt-oss's channels: thoughts, answers, calls, however they come in pieces, and the grammar that holds them."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.grammar import Grammar
from app.errors import InvalidRequest
from app.generation.events import ToolCallArguments, ToolCallStarted
from app.generation.harmony_form import HarmonyForm
from app.generation.job import ToolUse
from app.generation.tools.harmony import Channels, Harmony
from app.generation.tools.machine import Content, Thought
from app.generation.tools.toolbox import Tool, Toolbox
from tests.generation.test_function_schemas import Walker
from tests.generation.transcripts import TOOLS

THINKS = "<|channel|>analysis<|message|>Well.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>Hello"
PARIS = ("get_weather", '{"city": "Paris", "days": 3}')
CALLS = (
    "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>",
    " to=functions.get_weather<|channel|>commentary json<|message|>",
    "<|channel|>analysis to=functions.get_weather <|constrain|>json<|message|>",
    " to=get_weather<|channel|>commentary<|message|>",
)


def read(
    pieces: list[str],
    prompt: str = "<|start|>user<|message|>?<|end|><|start|>assistant",
    tools: tuple[Tool, ...] = TOOLS,
) -> tuple[str, str, list[tuple[str, str]]]:
    machine = Channels(Toolbox(tools), 0, prompt)
    thought, content = "", ""
    calls: list[list[str]] = []
    text = "".join(pieces)
    for piece in [it for letters in pieces for it in machine.push(letters)] + machine.finish():
        match piece:
            case Thought(text=said):
                thought += said
            case Content(text=said, at=at):
                assert text[at : at + len(said)] == said
                content += said
            case ToolCallStarted(name=name):
                calls.append([name, ""])
            case ToolCallArguments(text=said):
                calls[-1][1] += said
    return thought, content, [(name, arguments) for name, arguments in calls]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (THINKS + FINAL, ("Well.", "Hello", [])),
        (FINAL + "<|return|>", ("", "Hello", [])),
        (THINKS + THINKS + FINAL, ("Well.\nWell.", "Hello", [])),
        (
            THINKS + "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant" + FINAL,
            ("Well.", "I look.Hello", []),
        ),
        *((THINKS + call + PARIS[1] + "<|call|>", ("Well.", "", [PARIS])) for call in CALLS),
        (THINKS + CALLS[0] + "<|call|>", ("Well.", "", [("get_weather", "{}")])),
        (THINKS + "<|channel|>commentary to=functions.nothing<|message|>{}", ("Well.", "{}", [])),
        ("Just text.", ("", "Just text.", [])),
        ("", ("", "", [])),
        (THINKS + "<|chan", ("Well.", "", [])),
        ("<|channel|>analysis<|message|>Cut", ("Cut", "", [])),
        ("<|channel|>analysis<|message|>No end<|start|>assistant" + FINAL, ("No end", "Hello", [])),
        ("<|channel|>final <|constrain|>json<|message|>{}", ("", "{}", [])),
    ],
)
def test_channels_mean_thoughts_content_and_calls(said: str, told: tuple[str, str, list[tuple[str, str]]]) -> None:
    assert read([said]) == told
    assert read(list(said)) == told


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_split_of_the_text_gives_the_same_events(data: st.DataObject) -> None:
    text = THINKS + data.draw(st.sampled_from([FINAL, *(call + PARIS[1] + "<|call|>" for call in CALLS)]))
    text = text[: data.draw(st.integers(1, len(text)))]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text)), max_size=len(text))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(pieces) == read([text])


def test_an_answer_goes_on_with_the_message_that_the_prompt_ends_in() -> None:
    prompt = "<|start|>user<|message|>?<|end|><|start|>assistant<|channel|>final<|message|>Once upon"
    assert read([" a time<|return|>"], prompt) == ("", " a time", [])
    assert read(["more"], prompt.replace("final", "analysis")) == ("more", "", [])


def test_arguments_come_as_they_are_made() -> None:
    machine = Channels(Toolbox(TOOLS), 0)
    told = [len(machine.push(letter)) for letter in CALLS[0] + PARIS[1]]
    assert sum(told) > 10


LOOK = Tool(
    "look",
    {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["n"]},
)
NUMBER = Grammar("json_schema", '{"type":"integer","minimum":0,"maximum":9}')


@pytest.fixture(scope="module")
def walker() -> Walker:
    return Walker(special=("<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|constrain|>"))


async def held(
    walker: Walker, answer: Grammar | None = None, *tools: Tool, opened: bool = False, **use: Any
) -> tuple[Grammar, tuple[str, ...]]:
    asked = ToolUse(tools=tuple(tool.held() for tool in tools), **use)
    form = HarmonyForm(Harmony(), asked, answer, walker.added_id, opened=opened)
    grammar, unenforced = await form.compiled(walker.compiler.prepare)
    assert grammar is not None
    return grammar, unenforced


@pytest.mark.parametrize("seed", range(6))
def test_an_answer_is_held_behind_its_thoughts(walker: Walker, seed: int) -> None:
    grammar, _ = asyncio.run(held(walker, NUMBER))
    text, whole = walker.walk(grammar, seed)
    _, content, calls = read([text], tools=())
    if whole:
        assert 0 <= json.loads(content.rpartition("\n")[2] if "\n" in content else content[-1]) <= 9
        assert calls == []
    assert "<|channel|>" in text


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("answer", [None, NUMBER])
def test_a_forced_call_follows_its_schema(walker: Walker, seed: int, answer: Grammar | None) -> None:
    grammar, unenforced = asyncio.run(held(walker, answer, LOOK, required=True))
    text, whole = walker.walk(grammar, seed)
    assert unenforced == ()
    if whole:
        [(name, arguments)] = read([text], tools=(LOOK,))[2]
        assert name == "look"
        assert 0 <= json.loads(arguments)["n"] <= 9


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        (THINKS + "<|channel|>final<|message|>7", True),
        (THINKS + "<|channel|>final<|message|>no", False),
        (THINKS + THINKS + ' to=functions.look<|channel|>commentary json<|message|>{"n": 3}', True),
        ('<|channel|>commentary to=functions.look <|constrain|>json<|message|>{"n": 3}', True),
        ('<|channel|>commentary to=functions.look <|constrain|>json<|message|>{"n": 30}', False),
        ("<|start|>assistant<|channel|>final <|constrain|>json<|message|>7", True),
        ("plain", False),
    ],
)
def test_what_models_write_is_in_the_language(walker: Walker, said: str, fits: bool) -> None:
    grammar, _ = asyncio.run(held(walker, NUMBER, LOOK))
    matcher = walker.compiler.compiled(grammar).deep_copy()
    ids = walker.tokenizer.encode(said, add_special_tokens=False).ids
    taken = matcher.try_consume_tokens(ids)
    assert (taken == len(ids) and matcher.is_accepting()) == fits


def test_an_opened_message_is_held_without_a_header(walker: Walker) -> None:
    grammar, _ = asyncio.run(held(walker, NUMBER, opened=True))
    assert walker.walk(grammar, 1)[0].strip() in "0123456789"


def test_a_grammar_of_the_clients_own_holds_the_final_channel_alone(walker: Walker) -> None:
    grammar, _ = asyncio.run(held(walker, Grammar("lark", "start: /a+/", param="guided_grammar")))
    assert (grammar.trigger, grammar.once) == ("<|channel|>final<|message|>", True)
    with pytest.raises(InvalidRequest):
        asyncio.run(held(walker, Grammar("lark", "start: /a+/", param="guided_grammar"), LOOK))
