"""Functions as MCP servers describe them, in every call format: each can be called, and calls follow their schemas."""

import asyncio
import json
import re
from typing import Any

import llguidance.numpy as masks
import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from llguidance import LLMatcher
from tokenizers import AddedToken, Tokenizer

from app.engine.grammar import Grammar
from app.engine.mlx.guide.compiler import GrammarCompiler
from app.errors import InvalidRequest
from app.generation.forms import CallForm
from app.generation.job import ToolUse
from app.generation.schema.checked import checked
from app.generation.schema.reading import enforced
from app.generation.tools.table import formats
from app.generation.tools.toolbox import Tool, Toolbox
from tests.generation.test_tools import read
from tests.support.schemas import parameters
from tests.support.tiny import tiny

FORMATS = sorted(formats())
JSON_FORMATS = ("json_tools", "llama3_json", "mistral", "kimi_k2")
EOS = 2
SINGLE = ["<tool_call>", "</tool_call>", "<arg_value>", "</arg_value>", "[TOOL_CALLS]", "<escape>", "<|tool_call>"]
PLAIN = Tool("plain", {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}})
SLOW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


class Walker:
    """Random words of grammars, spelt with a small tokenizer in which some marks are single tokens."""

    def __init__(self, special: tuple[str, ...] = ()) -> None:
        self.single = [*SINGLE, *special]
        self.tokenizer = Tokenizer.from_file(str(tiny() / "tokenizer.json"))
        self.tokenizer.add_tokens(
            [AddedToken(mark, special=mark != "<tool_call>", normalized=False) for mark in self.single]
        )
        size = self.tokenizer.get_vocab_size()
        self.compiler = GrammarCompiler(self.tokenizer.to_str, vocabulary=size, eos_ids=frozenset({EOS}))
        self.room = masks.allocate_token_bitmask(1, size)
        self.closers = [self.tokenizer.encode(mark, add_special_tokens=False).ids[-1] for mark in '"}],']

    def added_id(self, text: str) -> int | None:
        return self.tokenizer.token_to_id(text) if text in self.single else None

    async def compiled(self, name: str, tools: tuple[Tool, ...], **use: Any) -> tuple[Grammar, tuple[str, ...]]:
        asked = ToolUse(tools=tuple(tool.held() for tool in tools), required=True, **use)
        grammar, unenforced = await CallForm(formats()[name], asked, None, self.added_id).compiled(
            self.compiler.prepare
        )
        assert grammar is not None
        return grammar, unenforced

    def walk(self, grammar: Grammar, seed: int, limit: int = 400) -> tuple[str, bool]:
        """A word of the language, or its beginning, and whether it is whole."""
        matcher: LLMatcher = self.compiler.compiled(grammar).deep_copy()
        random = np.random.default_rng(seed)
        taken: list[int] = []
        while not matcher.is_stopped():
            masks.fill_next_token_bitmask(matcher, self.room)
            assert not matcher.is_error(), matcher.get_error()[:300]
            allowed = np.flatnonzero(np.unpackbits(self.room[0].view(np.uint8), bitorder="little"))
            assert len(allowed), self.tokenizer.decode(taken)
            if EOS in allowed:
                break
            if len(taken) >= limit:
                return self.tokenizer.decode(taken, skip_special_tokens=False), False
            closing = [token for token in self.closers if token in allowed]
            token = int(random.choice(closing if closing and random.random() < 0.4 else allowed))
            assert matcher.consume_token(token), matcher.get_error()[:300]
            taken.append(token)
        return self.tokenizer.decode(taken, skip_special_tokens=False), True


@pytest.fixture(scope="module")
def walker() -> Walker:
    return Walker()


@given(schema=st.booleans().flatmap(lambda it: parameters(enforceable=it)))
@SLOW
def test_what_is_checked_is_json_schema_without_its_nulls(schema: dict[str, Any]) -> None:
    held = checked(schema)
    Draft202012Validator.check_schema(held, format_checker=None)
    assert checked(held) == held
    Draft202012Validator.check_schema(enforced(schema), format_checker=None)


@pytest.mark.parametrize("name", FORMATS)
@given(schema=parameters(), seed=st.integers(0, 999))
@SLOW
def test_every_function_can_be_called_in_every_format(
    walker: Walker, name: str, schema: dict[str, Any], seed: int
) -> None:
    parameters = checked(schema)
    assert isinstance(parameters, dict)
    tool = Tool("f", parameters)
    grammar, unenforced = asyncio.run(walker.compiled(name, (tool,), parallel=False))
    text, whole = walker.walk(grammar, seed)
    note(text)
    if not whole:
        return
    content, calls, _ = read(name, [text], toolbox(tool))
    assert content == ""
    [(called, arguments, _)] = calls
    assert called == "f"
    told = json.loads(arguments)
    if unenforced:
        return
    if name in JSON_FORMATS:
        Draft202012Validator(tool.held().parameters).validate(told)
    else:
        follows_names(told, tool.held().parameters)


def toolbox(*tools: Tool) -> Toolbox:
    return Toolbox(tuple(tool.held() for tool in tools))


def follows_names(told: dict[str, Any], schema: dict[str, Any]) -> None:
    """Parameters are the schema's, the required ones among them; values that are written as text may mean others."""
    assert set(schema.get("required", ())) <= told.keys()
    branches = schema.get("anyOf", [schema])
    known = set().union(*(branch.get("properties", {}) for branch in branches))
    patterns = "|".join(schema.get("patternProperties", {}))
    if all(branch.get("additionalProperties") is False for branch in branches):
        assert all(name in known or (patterns and re.search(patterns, name)) for name in told)


@pytest.mark.parametrize("name", FORMATS)
@given(schema=parameters(enforceable=False), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_one_function_that_cannot_be_enforced_leaves_the_others_theirs(
    walker: Walker, name: str, schema: dict[str, Any], seed: int
) -> None:
    parameters = checked(schema)
    assert isinstance(parameters, dict)
    hard = Tool("hard", parameters)
    grammar, unenforced = asyncio.run(walker.compiled(name, (PLAIN, hard)))
    assert unenforced == ("hard",)
    text, whole = walker.walk(grammar, seed, 200)
    note(text)
    if whole:
        content, calls, _ = read(name, [text], toolbox(PLAIN, hard))
        assert content == ""
        for called, arguments, _ in calls:
            told = json.loads(arguments)
            assert called == "hard" or told.keys() <= {"n"}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("pattern", ["^(?=a)b$", "(", "a(?!b)"])
def test_a_strict_function_that_cannot_be_enforced_is_refused_by_name_and_path(
    walker: Walker, name: str, pattern: str
) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string", "pattern": pattern}}, "required": ["x"]}
    tool = Tool("hard", schema, strict=True, param="tools.1.function.parameters")
    with pytest.raises(InvalidRequest, match="'hard'") as refused:
        asyncio.run(walker.compiled(name, (PLAIN, tool)))
    assert refused.value.param == "tools.1.function.parameters.properties.x.pattern"
    assert "r0:" not in refused.value.message
    assert "%json" not in refused.value.message
