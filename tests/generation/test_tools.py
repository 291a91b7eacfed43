"""Every call format: its transcript, any split of it, malformed calls, calls that are cut off, and its own grammar."""

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import llguidance.numpy as masks
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer
from tokenizers import AddedToken, Tokenizer

from app.engine.mlx.guide.disguise import disguised
from app.generation.events import ToolCallArguments, ToolCallStarted
from app.generation.tools.machine import Content, ToolMachine
from app.generation.tools.rules import Rules
from app.generation.tools.table import formats
from app.generation.tools.toolbox import Tool, Toolbox
from tests.generation.transcripts import TOOLS, TRANSCRIPTS
from tests.support.tiny import tiny

FORMATS = sorted(formats())
TOOLBOX = Toolbox(TOOLS)


def read(name: str, pieces: list[str], tools: Toolbox = TOOLBOX) -> tuple[str, list[tuple[str, ...]], list[str | int]]:
    """Content, calls, and the content with its places, put together."""
    numbers = count()
    machine = ToolMachine(formats()[name], tools, 0, lambda: f"id{next(numbers)}")
    events = [event for piece in pieces for event in machine.push(piece)] + machine.finish()
    text = "".join(pieces)
    content = ""
    calls: list[list[str]] = []
    order: list[str | int] = []
    for event in events:
        match event:
            case Content(text=said, at=at):
                assert text[at : at + len(said)] == said
                content += said
                order.append("text")
            case ToolCallStarted(call=call, id=id_, name=called):
                assert call == len(calls)
                calls.append([called, "", id_])
                order.append(call)
            case ToolCallArguments(call=call, text=said):
                assert call == len(calls) - 1
                assert said
                calls[call][1] += said
    merged = [it for i, it in enumerate(order) if i == 0 or order[i - 1] != it]
    return content, [tuple(call) for call in calls], merged


def decoded(calls: list[tuple[str, ...]]) -> tuple[tuple[str, dict[str, Any]], ...]:
    return tuple((name, json.loads(arguments)) for name, arguments, _ in calls)


def test_every_format_has_a_transcript() -> None:
    assert TRANSCRIPTS.keys() == formats().keys()


@pytest.mark.parametrize("name", FORMATS)
def test_a_transcript_means_its_calls_and_no_mark_is_content(name: str) -> None:
    transcript = TRANSCRIPTS[name]
    content, calls, _ = read(name, [transcript.text])
    assert content == transcript.content
    assert decoded(calls) == transcript.calls
    assert len({id_ for _, _, id_ in calls}) == len(calls)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_split_of_the_text_gives_the_same_events(name: str, data: st.DataObject) -> None:
    transcript = TRANSCRIPTS[name]
    text = data.draw(st.sampled_from([transcript.text, transcript.broken, transcript.text + " and " + transcript.text]))
    text = text[: data.draw(st.integers(1, len(text)))]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text)), max_size=len(text))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(name, pieces) == read(name, [text])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_malformed_call_is_content_without_its_marks(name: str, size: int) -> None:
    transcript = TRANSCRIPTS[name]
    pieces = [transcript.broken[i : i + size] for i in range(0, len(transcript.broken), size)]
    content, calls, _ = read(name, pieces)
    assert (content, calls) == (transcript.remains, [])


@pytest.mark.parametrize("name", FORMATS)
def test_arguments_come_as_they_are_made(name: str) -> None:
    """Told letter by letter, a call is known before it ends and its arguments come in several pieces."""
    transcript = TRANSCRIPTS[name]
    machine = ToolMachine(formats()[name], TOOLBOX, 0)
    seen = [len(machine.push(letter)) for letter in transcript.text]
    arguments = json.dumps(transcript.calls[0][1])
    assert sum(seen) > 3
    first = next(i for i, events in enumerate(seen) if events and machine.called)
    assert first < len(transcript.text) - len(arguments) // 2


@pytest.mark.parametrize("name", FORMATS)
def test_plain_text_is_left_as_it_is(name: str) -> None:
    text = "  A list: [1, 2]; <b>bold</b>, f(x) {y}. \n\n"
    assert read(name, list(text)) == (text, [], ["text"])


WORDS = Toolbox(
    (
        Tool(
            "book",
            {
                "type": "object",
                "properties": {
                    "who": {"type": "string", "maxLength": 12},
                    "seats": {"type": "integer", "minimum": 1, "maximum": 9},
                    "class": {"enum": ["first", "second"]},
                    "window": {"type": "boolean"},
                    "code": {"type": "string", "pattern": "^[A-Z]{2}/[0-9]{3}$"},
                    "extras": {"type": "array", "items": {"enum": ["meal", "bag"]}, "maxItems": 2},
                },
                "required": ["who", "seats", "class", "code"],
                "additionalProperties": False,
            },
            strict=True,
        ),
        Tool(
            "find",
            {"type": "object", "properties": {"what": {"type": "string", "minLength": 1, "maxLength": 9}}},
        ).held(),
    )
)


@pytest.fixture(scope="module")
def walker() -> tuple[Callable[..., str], Callable[..., Any]]:
    """Random words of a grammar, spelt with a small tokenizer in which some marks are single tokens."""
    tokenizer = Tokenizer.from_file(str(tiny() / "tokenizer.json"))
    single = ["<tool_call>", "</tool_call>", "<arg_value>", "</arg_value>", "[TOOL_CALLS]", "<escape>", "<|tool_call>"]
    tokenizer.add_tokens([AddedToken(mark, special=mark != "<tool_call>", normalized=False) for mark in single])
    size = tokenizer.get_vocab_size()
    ll = LLTokenizer(disguised(tokenizer.to_str()), n_vocab=size, eos_token=[2])
    room = masks.allocate_token_bitmask(1, size)

    def walk(grammar: str, seed: int, limit: int = 2000) -> str:
        matcher = LLMatcher(ll, LLMatcher.grammar_from_lark(grammar))
        assert not matcher.is_error(), matcher.get_error()
        random = np.random.default_rng(seed)
        taken: list[int] = []
        while not matcher.is_stopped():
            masks.fill_next_token_bitmask(matcher, room)
            assert not matcher.is_error(), matcher.get_error()
            allowed = np.flatnonzero(np.unpackbits(room[0].view(np.uint8), bitorder="little"))
            if 2 in allowed:
                break
            assert len(taken) < limit
            token = int(random.choice(allowed))
            assert matcher.consume_token(token), matcher.get_error()
            taken.append(token)
        return tokenizer.decode(taken, skip_special_tokens=False)

    return walk, lambda text: tokenizer.token_to_id(text) if text in single else None


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("parallel", [False, True])
def test_a_forced_call_is_read_and_follows_its_schema(
    name: str, parallel: bool, walker: tuple[Callable[..., str], Callable[..., Any]]
) -> None:
    walk, added_id = walker
    format_ = formats()[name]
    rules = Rules(added_id, parallel=parallel)
    start = f"{rules.text(format_.section.start)} " if format_.section.start else ""
    section = rules.rule(f"{start}{format_.write(rules, WORDS)}")
    for seed in range(6):
        text = walk(rules.grammar(section), seed)
        content, calls, _ = read(name, [text], WORDS)
        assert content == "", text
        assert calls, text
        if not parallel:
            assert len(calls) == 1
        for called, arguments in decoded(calls):
            follows(called, arguments)


def follows(name: str, arguments: dict[str, Any]) -> None:
    if name == "find":
        assert 1 <= len(arguments.get("what", "?")) <= 9
        return
    assert name == "book"
    assert isinstance(arguments["who"], str)
    assert len(arguments["who"]) <= 12
    assert 1 <= arguments["seats"] <= 9
    assert arguments["class"] in {"first", "second"}
    assert arguments["code"][2] == "/"
    assert arguments["code"][:2].isupper()
    assert isinstance(arguments.get("window", True), bool)
    assert set(arguments.get("extras", ())) <= {"meal", "bag"}
    assert arguments.keys() <= {"who", "seats", "class", "window", "code", "extras"}
