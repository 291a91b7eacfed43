"""Forty conversations a family as transformers writes them, odd texts, and calls out of scripted tokens."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from app.api.read import translate
from app.engine.base import Sequence, Token
from app.engine.grammar import Grammar
from app.engine.mlx.guide.compiler import GrammarCompiler
from app.engine.mlx.load.reasons import reason
from app.engine.mlx.text.spelling import SequenceSpelling
from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.engine.mlx.text.tokenizer_cache import TokenizerCache, TokenizerUnreadable
from app.engine.text import Tokenizer
from app.generation import chat
from app.generation.events import Delta, ToolCallArguments, ToolCallStarted
from app.generation.job import ChatJob
from app.generation.plan import Plan
from app.schemas.chat import ChatRequest
from app.schemas.sampling import Sampling
from app.settings import ModelEntry, Settings
from tests.vocabularies.conversations import ODD, TOOLS, conversation, for_transformers
from tests.vocabularies.real import ALL, FAMILIES, REFUSED, TEMPLATED, Here, directory, of_transformers

CONVERSATIONS = 40
LOOK = '{"city": "Zürich 👩‍🚀"}'
JSON_CALL = f'<tool_call>\n{{"name": "look", "arguments": {LOOK}}}\n</tool_call>'
CALLED = ("qwen3", "llama3_2", "mistral_nemo", "gptoss", *(("deepseek_v3", "gemma3") if ALL else ()))
"""The last two are told of tools in the way of those without a template, which needs no vocabulary of its own."""
CALLS = {
    "mistral_nemo": f'[TOOL_CALLS][{{"name": "look", "arguments": {LOOK}}}]',
    "qwen3": f"<think>\n\n</think>\n\n{JSON_CALL}",
    "llama3_2": f'{{"name": "look", "parameters": {LOOK}}}',
    "deepseek_v3": JSON_CALL,
    "gemma3": JSON_CALL,
    "gptoss": "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.look "
    f"<|constrain|>json<|message|>{LOOK}",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vocabularies")


@pytest.fixture(scope="module")
def loaded(home: Path) -> Callable[..., Here]:
    """Tokenizers by family, each read once."""
    read: dict[str, Here] = {}

    def load(family: str) -> Here:
        if family not in read:
            read[family] = Here(MLXTokenizer.load(directory(family, home), None))
        return read[family]

    return load


@pytest.fixture(scope="module")
def written(loaded: Callable[..., Here], home: Path) -> dict[str, list[tuple[dict[str, Any], tuple[str, Any]]]]:
    """Conversations by family, and what transformers makes of them."""
    told = {}
    for family in TEMPLATED:
        tools = loaded(family).facts.template_takes_tools
        told[family] = [conversation(seed, tools=tools, thoughts=family == "qwen3") for seed in range(CONVERSATIONS)]
    asked = [(directory(family, home), [for_transformers(it) for it in chats]) for family, chats in told.items()]
    made = of_transformers(asked)
    return {family: list(zip(told[family], its, strict=True)) for family, its in zip(told, made, strict=True)}


@pytest.fixture(scope="module")
def compilers(loaded: Callable[..., Here]) -> Callable[..., GrammarCompiler]:
    """Of each family, made once: a large vocabulary takes seconds."""
    made: dict[str, GrammarCompiler] = {}

    def compiler(family: str) -> GrammarCompiler:
        if family not in made:
            facts, tokenizer = loaded(family).facts, loaded(family).tokenizer
            made[family] = GrammarCompiler(tokenizer.serialized, vocabulary=facts.vocab_size, eos_ids=facts.eos_ids)
        return made[family]

    return compiler


def job(told: dict[str, Any], **more: Any) -> ChatJob:
    body = {"model": "m", **{key: value for key, value in told.items() if value is not None}, **more}
    return translate.chat(msgspec.convert(body, ChatRequest), ModelEntry(), Settings())


@pytest.mark.parametrize("family", TEMPLATED)
def test_conversations_are_written_as_transformers_writes_them(
    loaded: Callable[..., Here], written: dict[str, list[tuple[dict[str, Any], tuple[str, Any]]]], family: str
) -> None:
    here = cast("Tokenizer", loaded(family))

    async def made(it: dict[str, list[dict[str, Any]]]) -> tuple[str, list[int]]:
        conversation = await chat.rendered(here, job(it))
        return conversation.text, list(await chat.encoded(here, conversation))

    for it, expected in written[family]:
        assert asyncio.run(made(it)) == expected, it


@pytest.mark.parametrize("family", FAMILIES)
def test_odd_texts_come_back_token_by_token(loaded: Callable[..., Here], family: str) -> None:
    tokenizer = loaded(family).tokenizer
    for text in ODD:
        ids = tuple(tokenizer.encode(f"It is {text} so.", special_tokens=False))
        whole = tokenizer._hf.decode(ids)
        assert tokenizer.decode(ids) == whole
        spelt = b"".join(tokenizer.token_bytes(token) for token in ids).decode()
        assert spelt.removeprefix(" ") == whole, "SentencePiece puts a space before each text"


@pytest.mark.parametrize("family", REFUSED)
async def test_a_tokenizer_that_is_python_code_is_refused_in_words(
    home: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: Any) -> None:
        pytest.fail("somebody is asked whether that may run")

    monkeypatch.setattr("builtins.input", asked)
    path = directory(family, home)
    with pytest.raises(TokenizerUnreadable) as refused:
        await TokenizerCache().load(path, None)
    assert reason(refused.value, path) == "its tokenizer asks for Python code of its own, which is never run here"


THOUGHTS = {
    "qwen3": "<think>\nHm, {odd}.\n</think>\n\nSo: {odd}",
    "gptoss": "<|channel|>analysis<|message|>Hm, {odd}.<|end|><|start|>assistant<|channel|>final<|message|>So: {odd}",
}


@pytest.mark.parametrize("family", THOUGHTS)
def test_thoughts_are_told_apart_from_the_answer(loaded: Callable[..., Here], family: str) -> None:
    here = loaded(family)
    plan = Plan(here.facts, job({"messages": [{"role": "user", "content": "?"}]}))
    for odd in (it for it in ODD if it.strip()):
        ids = here.tokenizer.encode(THOUGHTS[family].format(odd=odd), special_tokens=False)
        for together in (1, 1000):
            events = _events(here, plan, [*ids, min(here.facts.eos_ids)], together)
            told = [it for it in events if isinstance(it, Delta)]
            thought, said = (
                here.tokenizer.decode(tuple(here.tokenizer.encode(it, special_tokens=False)))
                for it in (f"Hm, {odd}.", f"So: {odd}")
            )
            assert "".join(it.reasoning for it in told).strip() == thought
            assert "".join(it.text for it in told) == said


@pytest.mark.parametrize("family", CALLED)
@pytest.mark.parametrize("forced", [False, True])
def test_a_scripted_call_is_read_whole_and_streamed(
    loaded: Callable[..., Here], compilers: Callable[..., GrammarCompiler], family: str, forced: bool
) -> None:
    here = loaded(family)
    if family == "gptoss":  # its package has no template
        here = Here(here.tokenizer)
        here.facts = msgspec.structs.replace(here.facts, template_takes_tools=True)
    asked = job(
        {"messages": [{"role": "user", "content": "?"}], "tools": TOOLS},
        tool_choice="required" if forced else "auto",
    )
    plan = Plan(here.facts, asked)
    compiler = compilers(family)

    async def compile_(grammar: Grammar) -> None:
        await compiler.prepare(grammar)

    asyncio.run(plan.prepare(compile_))
    ids = here.tokenizer.encode(CALLS[family], special_tokens=False)
    assert plan.unenforced == ()
    assert plan.grammar is not None
    if not plan.grammar.trigger:
        held = ids if family != "qwen3" else here.tokenizer.encode(JSON_CALL, special_tokens=False)
        matcher = compiler.compiled(plan.grammar).deep_copy()
        assert matcher.try_consume_tokens(held) == len(held)
        assert matcher.is_accepting()
    for together in (1, 1000):
        calls, text = _read(here, plan, [*ids, min(here.facts.eos_ids)], together)
        assert text == ""
        assert calls == [("look", json.loads(LOOK))]


def _events(here: Here, plan: Plan, ids: list[int], together: int) -> list[Any]:
    row = SequenceSpelling(
        here.tokenizer, Sequence(prompt=(1,), sampling=Sampling(), max_tokens=999, stop_ids=frozenset(), keep=plan.keep)
    ).row()
    tokens = [
        row.spelt(Token(0, 0, token, finish="stop" if at == len(ids) - 1 else None)) for at, token in enumerate(ids)
    ]
    choice = plan.choice(0)
    events = [it for at in range(0, len(tokens), together) for it in choice.push(tokens[at : at + together])]
    return [*events, choice.finished]


def _read(here: Here, plan: Plan, ids: list[int], together: int) -> tuple[list[tuple[str, dict[str, str]]], str]:
    *events, finished = _events(here, plan, ids, together)
    names = [it.name for it in events if isinstance(it, ToolCallStarted)]
    said = [it for it in events if isinstance(it, ToolCallArguments)]
    arguments = ["".join(it.text for it in said if it.call == n) for n in range(len(names))]
    assert finished == "tool_calls"
    return (
        [(name, json.loads(it)) for name, it in zip(names, arguments, strict=True)],
        "".join(it.text for it in events if isinstance(it, Delta)),
    )
