"""Answers held to a grammar, on a random-weight model: only the grammar keeps them in form."""

import asyncio
import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest

from app.engine.base import Sequence, Token
from app.engine.grammar import Grammar, Thoughts
from app.engine.mlx.batch.engine import MLXEngine
from app.engine.mlx.guide import compiler
from app.engine.mlx.guide import guide as guides
from app.engine.mlx.guide.compiler import GrammarCompiler
from app.errors import EngineFailed, InvalidRequest, Unavailable
from app.schemas.sampling import Sampling
from tests.support.schemas import random_schema
from tests.support.tiny import tiny

HOT = Sampling(temperature=1.5, seed=1)
SCHEMAS = 200
VALIDATOR = jsonschema.Draft202012Validator
FIELD = "response_format.json_schema.schema"


def schema(told: dict[str, Any]) -> Grammar:
    return Grammar("json_schema", json.dumps(told), param=FIELD)


def ask(
    engine: MLXEngine, grammar: Grammar | None, *, sampling: Sampling = HOT, max_tokens: int = 400, **more: Any
) -> Sequence:
    return Sequence(
        tuple(engine.tokenizer.encode("An answer:")),
        sampling,
        max_tokens=max_tokens,
        stop_ids=engine.tokenizer.eos_ids,
        grammar=grammar,
        **more,
    )


async def run(engine: MLXEngine, *sequences: Sequence) -> list[list[Token]]:
    """The tokens of each row, in order."""
    made: dict[tuple[int, int], list[Token]] = {}
    async for items in engine.stream(sequences):
        for item in items:
            if isinstance(item, Token):
                made.setdefault((item.sequence, item.row), []).append(item)
    return [made[key] for key in sorted(made)]


def said(engine: MLXEngine, tokens: list[Token]) -> str:
    detokenizer = engine.tokenizer.detokenizer()
    return "".join(detokenizer.push(it.id) for it in tokens if it.finish != "stop") + detokenizer.finish()


def ids(engine: MLXEngine, text: str) -> tuple[int, ...]:
    return tuple(engine.tokenizer.encode(text, special_tokens=False))


async def test_every_answer_is_valid_json_of_its_schema(engine: MLXEngine) -> None:
    """200 schemas, 16 rows at a time, at a temperature that leaves nothing of the model's own order."""
    places = asyncio.Semaphore(16)

    async def one(seed: int) -> str | None:
        told = random_schema(seed)
        grammar = schema(told)
        async with places:
            await engine.prepare(grammar)
            [tokens] = await run(
                engine, ask(engine, grammar, sampling=Sampling(temperature=1.5, seed=seed), max_tokens=800)
            )
        if tokens[-1].finish == "stop":
            VALIDATOR(told, format_checker=VALIDATOR.FORMAT_CHECKER).validate(json.loads(said(engine, tokens)))
        return tokens[-1].finish

    ends = await asyncio.gather(*(one(seed) for seed in range(SCHEMAS)))
    assert set(ends) <= {"stop", "length"}
    assert ends.count("stop") >= SCHEMAS * 0.97


@pytest.mark.parametrize("temperature", [0, 1.5])
@pytest.mark.parametrize(
    ("grammar", "form"),
    [
        (Grammar("regex", r"\d{3}-[a-f]{1,9}"), r"[0-9]{3}-[a-f]{1,9}"),
        (
            Grammar("choice", json.dumps(["yes", "no", 'say "maybe"\n', "<|im_end|>"])),
            r"yes|no|say \"maybe\"\n|<\|im_end\|>",
        ),
        (Grammar("lark", 'start: "(" /[0-9]{1,4}/ ("," /[0-9]{1,4}/){2} ")"'), r"\([0-9]{1,4}(,[0-9]{1,4}){2}\)"),
        (Grammar("lark", 'root ::= "a" digit digit\ndigit ::= [0-9]'), r"a[0-9]{2}"),
    ],
)
async def test_other_grammars(engine: MLXEngine, grammar: Grammar, form: str, temperature: float) -> None:
    await engine.prepare(grammar)
    for tokens in await run(engine, ask(engine, grammar, sampling=Sampling(temperature=temperature), rows=3)):
        assert tokens[-1].finish == "stop"
        assert re.fullmatch(form, said(engine, tokens))


async def test_free_rows_beside_guided_ones_say_what_they_say_alone(engine: MLXEngine) -> None:
    free = ask(engine, None, sampling=Sampling(temperature=0.8, seed=5), max_tokens=30)
    [alone] = await run(engine, free)
    beside, held = await run(engine, free, ask(engine, Grammar("regex", "[ab]{40}")))
    assert [it.id for it in beside] == [it.id for it in alone]
    assert re.fullmatch("[ab]{40}", said(engine, held))


async def test_max_tokens_cuts_an_answer_short(engine: MLXEngine) -> None:
    [tokens] = await run(engine, ask(engine, Grammar("regex", "[ab]{40}"), max_tokens=3))
    assert (len(tokens), tokens[-1].finish) == (3, "length")


async def test_only_the_end_follows_a_complete_answer(engine: MLXEngine) -> None:
    """Whatever else is asked for: no stop token allowed to be drawn, more tokens wanted, every token banned."""
    banned = tuple((token, -100.0) for token in range(engine.tokenizer.vocab_size))
    sequence = Sequence(
        ids(engine, "x"),
        Sampling(temperature=1, logit_bias=banned),
        max_tokens=50,
        min_tokens=40,
        grammar=Grammar("choice", '["yes"]'),
    )
    [tokens] = await run(engine, sequence)
    assert said(engine, tokens) == "yes"
    assert tokens[-1].finish == "stop"
    assert tokens[-1].id in engine.tokenizer.eos_ids


async def test_penalties_and_logprobs_go_on_beside_a_grammar(engine: MLXEngine) -> None:
    sampling = Sampling(temperature=1, seed=2, frequency_penalty=1, repetition_penalty=1.2, top_p=0.9, top_k=5)
    [tokens] = await run(engine, ask(engine, Grammar("regex", "[a-z]{12}"), sampling=sampling, logprobs=3))
    assert re.fullmatch("[a-z]{12}", said(engine, tokens))
    assert all(it.logprob is not None and len(it.top) == 3 for it in tokens)


async def test_the_grammar_begins_after_a_thought(engine: MLXEngine) -> None:
    end = ids(engine, "</t>")
    for sequence in (
        ask(engine, Grammar("regex", "[0-9]{3}"), thoughts=Thoughts(end, open=True, budget=6)),
        ask(engine, Grammar("choice", '["42"]'), thoughts=Thoughts(end, open=True, budget=0)),
    ):
        [tokens] = await run(engine, sequence)
        budget = sequence.thoughts.budget
        assert tuple(it.id for it in tokens[budget : budget + len(end)]) == end
        assert re.fullmatch("[0-9]{2,3}", said(engine, tokens[budget + len(end) :]))
        assert tokens[-1].finish == "stop"


async def test_a_thought_that_the_model_opens_is_free_until_it_ends(engine: MLXEngine) -> None:
    start, end = ids(engine, "#"), ids(engine, "%")
    likes = Sampling(temperature=1, seed=4, logit_bias=((start[0], 40.0),))
    thoughts = Thoughts(end, start, budget=5)
    [tokens] = await run(engine, ask(engine, Grammar("regex", "[0-9]{3}"), sampling=likes, thoughts=thoughts))
    assert said(engine, tokens).startswith("######%")
    assert re.fullmatch("[0-9]{3}", said(engine, tokens).removeprefix("######%"))


async def test_an_answer_that_is_owed_cannot_be_left_out_by_ending_inside_a_thought(engine: MLXEngine) -> None:
    wants_to_end = Sampling(temperature=1, seed=4, logit_bias=tuple((it, 80.0) for it in engine.tokenizer.eos_ids))
    thoughts = Thoughts(ids(engine, "%"), open=True, budget=9)
    [tokens] = await run(engine, ask(engine, Grammar("regex", "[0-9]{3}"), sampling=wants_to_end, thoughts=thoughts))
    assert len(tokens) > 9
    assert re.search("%[0-9]{3}$", said(engine, tokens))


async def test_a_budget_closes_a_thought_without_any_grammar(engine: MLXEngine) -> None:
    [tokens] = await run(engine, ask(engine, None, thoughts=Thoughts(ids(engine, "%"), open=True, budget=4)))
    assert tokens[4].id == ids(engine, "%")[0]


async def test_a_trigger_holds_what_follows_it_and_lets_go_again(engine: MLXEngine) -> None:
    grammar = Grammar("lark", 'start: "[" /[0-9]{2}/ "]"', trigger="e")
    likes = Sampling(temperature=1.5, seed=1, logit_bias=((ids(engine, "e")[0], 6.0),))
    [tokens] = await run(engine, ask(engine, grammar, sampling=likes, max_tokens=120))
    text = said(engine, tokens)
    begun = [text[it.end() : it.end() + 4] for it in re.finditer("e", text)]
    begun = [it for it in begun if len(it) == 4 and it.startswith("[")]
    assert len(begun) > 1
    assert all(re.fullmatch(r"\[[0-9]{2}\]", it) for it in begun)


async def test_a_trigger_may_end_the_answer(engine: MLXEngine) -> None:
    grammar = Grammar("lark", 'start: "[" /[0-9]{2}/ "]"', trigger="e", once=True)
    likes = Sampling(temperature=1.5, seed=1, logit_bias=((ids(engine, "e")[0], 6.0),))
    [tokens] = await run(engine, ask(engine, grammar, sampling=likes, max_tokens=120))
    assert re.search(r"e\[[0-9]{2}\]$", said(engine, tokens))
    assert tokens[-1].finish == "stop"


async def test_a_grammar_that_gives_up_ends_its_own_request_alone(
    engine: MLXEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(matcher: Any, token: int) -> None:
        raise EngineFailed("The grammar could not be followed.", code="grammar_failed")

    other = asyncio.create_task(run(engine, ask(engine, None, max_tokens=40)))
    monkeypatch.setattr(guides, "consume", broken)
    with pytest.raises(EngineFailed, match="could not be followed"):
        await run(engine, ask(engine, Grammar("regex", "[ab]{40}")))
    [tokens] = await other
    assert len(tokens) == 40 or tokens[-1].finish == "stop"


@pytest.mark.parametrize(
    ("told", "place", "word"),
    [
        ({"properties": {"if": {"type": "string", "if": {}}}}, ".properties.if.if", "if"),
        ({"anyOf": [{"type": "integer"}, {"type": "string", "format": "colour"}]}, ".anyOf.1.format", "colour"),
        ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, ".oneOf", "oneOf"),
        ({"items": {"type": "string", "pattern": "(?=a)b"}}, ".items.pattern", "look-ahead"),
        ({"properties": {"a": {"$ref": "#/$defs/missing"}}}, ".properties.a.$ref", "missing"),
        ({"$ref": "http://example.org/schema"}, ".$ref", "$ref"),
        ({"type": "list"}, ".type", "list"),
        ({"type": "array", "uniqueItems": True}, ".uniqueItems", "uniqueItems"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "", "no text"),
    ],
)
async def test_what_cannot_be_enforced_is_refused_by_name(
    engine: MLXEngine, told: dict[str, Any], place: str, word: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await engine.prepare(schema(told))
    assert refused.value.param == FIELD + place
    assert word in refused.value.message


def deep() -> dict[str, Any]:
    told: dict[str, Any] = {"type": "string"}
    for _ in range(400):
        told = {"type": "object", "properties": {"a": told}}
    return told


@pytest.mark.parametrize(
    "grammar",
    [
        schema({"enum": ["x" * 1000 + str(i) for i in range(300)]}),
        schema(deep()),
        schema({"allOf": [{"anyOf": [{"properties": {f"p{i}{j}": {}}} for i in range(20)]} for j in range(5)]}),
        Grammar("regex", "(" * 300 + "a" + ")*" * 300, param=FIELD),
        Grammar("lark", "start: start start | nothing", param=FIELD),
    ],
    ids=["huge", "deep", "exploding", "nested", "wrong"],
)
async def test_a_hostile_grammar_is_refused_and_stalls_nobody(engine: MLXEngine, grammar: Grammar) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    began = asyncio.get_running_loop().time()
    with pytest.raises(InvalidRequest) as refused:
        await engine.prepare(grammar)
    took = asyncio.get_running_loop().time() - began
    ticking.cancel()
    assert refused.value.param.startswith(FIELD)
    assert took < 10
    assert ticks >= took / 0.1 - 1


async def test_a_catastrophic_pattern_does_not_hold_up_the_rows_beside_it(engine: MLXEngine) -> None:
    grammar = Grammar("regex", "(.*a){30}.{500}b(.*a){30}(((a{1,99}){1,99}){1,99}){1,99}")
    await engine.prepare(grammar)
    costly = asyncio.create_task(run(engine, ask(engine, grammar, max_tokens=40)))
    began = asyncio.get_running_loop().time()
    await run(engine, ask(engine, None, max_tokens=40))
    assert asyncio.get_running_loop().time() - began < 5
    with contextlib.suppress(EngineFailed):
        await costly


async def test_options_of_the_grammar_library_are_not_taken_from_a_schema(engine: MLXEngine) -> None:
    grammar = schema({"type": "object", "if": {}, "x-guidance": {"lenient": True}})
    with pytest.raises(InvalidRequest, match="if"):
        await engine.prepare(grammar)


async def test_the_time_that_a_large_vocabulary_takes_is_not_the_grammars(monkeypatch: pytest.MonkeyPatch) -> None:
    written = (tiny(0) / "tokenizer.json").read_text()

    def slowly() -> str:
        time.sleep(0.3)
        return written

    monkeypatch.setattr(compiler, "PATIENCE", 0.2)
    made = compiler.GrammarCompiler(slowly, vocabulary=512, eos_ids=frozenset({2}))
    await made.prepare(Grammar("json_object"))
    made.close()


def busy(seconds: float) -> None:
    """Compute for so long."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[GrammarCompiler, list[Callable[..., Any]]]]:
    """A compiler of little patience, which is told what to do before it compiles."""
    monkeypatch.setattr(compiler, "PATIENCE", 0.2)
    made = compiler.GrammarCompiler((tiny(0) / "tokenizer.json").read_text, vocabulary=512, eos_ids=frozenset({2}))
    before = [lambda: None]
    compiled = made.compiled
    monkeypatch.setattr(made, "compiled", lambda grammar: (before[0](), compiled(grammar))[1])
    yield made, before
    made.close()


@pytest.mark.parametrize("waits", [True, False])
async def test_only_what_a_grammar_computes_is_held_against_it(
    hasty: tuple[GrammarCompiler, list[Callable[..., Any]]], waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "SLOWEST", 300)
    made, before = hasty
    before[0] = (lambda: time.sleep(0.4)) if waits else (lambda: busy(1.0))
    if waits:  # others have the machine, or the threads that compile
        await asyncio.gather(*(made.prepare(Grammar("regex", f"[0-9]{{{n}}}")) for n in range(1, 6)))
    else:
        with pytest.raises(InvalidRequest, match="smaller"):
            await made.prepare(Grammar("regex", "[a-z]"))


async def test_a_machine_that_gives_it_no_time_is_told_of_as_one(
    hasty: tuple[GrammarCompiler, list[Callable[..., Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, before = hasty
    monkeypatch.setattr(compiler, "SLOWEST", 2)
    before[0] = lambda: time.sleep(0.8)
    with pytest.raises(Unavailable, match="busy"):
        await made.prepare(Grammar("regex", "[a-z]"))


@pytest.mark.parametrize("trigger", ["", "%"])
async def test_what_was_forgotten_since_it_was_prepared_is_compiled_beside_the_engines_thread(
    engine: MLXEngine, monkeypatch: pytest.MonkeyPatch, trigger: str
) -> None:
    threads = []
    compiled = engine.grammars.compiled

    def noted(grammar: Grammar) -> Any:
        threads.append(threading.current_thread().name)
        return compiled(grammar)

    monkeypatch.setattr(engine.grammars, "compiled", noted)
    monkeypatch.setattr(compiler, "KEPT", 1)
    wanted = Grammar("regex", "[0-9]{3}", trigger=trigger)
    await engine.prepare(wanted)
    running = asyncio.ensure_future(run(engine, ask(engine, wanted, sampling=HOT, max_tokens=30)))
    await engine.prepare(Grammar("regex", "[a-c]"))
    await running
    await engine.prepare(Grammar("regex", "[d-f]"))
    before = len(threads)
    [tokens] = await run(engine, ask(engine, wanted, sampling=HOT, max_tokens=30))
    assert tokens
    assert len(threads) == before + 1
    assert all(name.startswith("grammar") for name in threads), threads
