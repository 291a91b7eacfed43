"""The strategy on a scripted engine: dialects, limits, echo, ranking, and giving back what was taken."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.engine.base import Sequence, Token
from app.engine.grammar import Grammar
from app.engine.text import Rendered
from app.errors import EngineFailed, InvalidRequest
from app.generation.events import Cached, Completed, Delta, Finished, Started
from app.generation.job import ChatJob, CompletionJob, Decoding
from app.generation.strategy import GenerationStrategy
from app.schemas.messages import (
    AssistantMessage,
    DeveloperMessage,
    FunctionCall,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from app.schemas.sampling import Sampling
from tests.support.scripted import BOS, EOS, ByteTokenizer, ScriptedEngine, ScriptedStream, echoes, says


class Leased:
    load_seconds = 0.0
    rows = 64
    most = 1 << 40

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.model = "scripted"
        self.admitted: list[int] = []
        self.open = False

    async def admit(self, tokens: int) -> None:
        self.admitted.append(tokens)

    async def prepare(self, grammar: Grammar) -> None:
        await self.engine.prepare(grammar)

    async def grow(self, nbytes: int, put_back: Callable[..., Any]) -> bool:
        self.put_back = put_back
        await self.admit(nbytes)
        return False

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Any]:
        self.open = True
        try:
            yield self
        finally:
            self.open = False


def completion(
    *prompts: str | tuple[int, ...], echo: bool = False, suffix: str | None = None, **decoding: Any
) -> CompletionJob:
    asked: dict[str, Any] = {"sampling": Sampling(), "max_tokens": 64} | decoding
    return CompletionJob(decoding=Decoding(**asked), prompts=prompts or ("Hi",), echo=echo, suffix=suffix)


def chat(*messages: Any, **decoding: Any) -> ChatJob:
    return ChatJob(decoding=Decoding(**{"sampling": Sampling(), "max_tokens": None} | decoding), messages=messages)


async def run(job: ChatJob | CompletionJob, engine: ScriptedEngine) -> tuple[list[Any], Leased]:
    held = Leased(engine)
    told = [event async for together in GenerationStrategy().run(held.lease(), job) for event in together]
    events = [event for event in told if not isinstance(event, Cached)]
    assert sum(isinstance(event, Cached) for event in told) == (0 if job.decoding.ranked else 1)
    assert not held.open
    assert not engine.streams
    return events, held


def texts(events: list[Any]) -> dict[int, str]:
    out: dict[int, str] = {}
    for event in events:
        if isinstance(event, Delta):
            out[event.index] = out.get(event.index, "") + event.text
    return out


async def test_a_completion_is_raw_text_and_usage_counts_tokens() -> None:
    engine = ScriptedEngine(says("abc"))
    events, held = await run(completion("Hé"), engine)
    assert engine.submitted[0].prompt == (BOS, *"Hé".encode())
    assert isinstance(events[0], Started)
    assert texts(events) == {0: "abc"}
    assert Finished(0, "stop") in events
    usage = events[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (4, 4, 8)
    assert held.admitted == [4 + 64]


async def test_a_chat_goes_through_the_template_without_extra_special_tokens() -> None:
    engine = ScriptedEngine(says("hi"))
    await run(chat(DeveloperMessage("be brief"), UserMessage([TextPart("a"), TextPart("b")])), engine)
    assert bytes(engine.submitted[0].prompt).decode() == "<system>be brief\n<user>ab\n<assistant>"


async def test_calls_and_their_results_reach_the_template_as_it_knows_them() -> None:
    seen = []

    class Recording(ByteTokenizer):
        async def render_chat(self, messages: list[dict[str, Any]], **_: Any) -> Rendered:
            seen.extend(messages)
            return Rendered("x")

    call = ToolCall(id="c1", function=FunctionCall(name="add", arguments='{"a": 1}'))
    job = chat(UserMessage("add"), AssistantMessage(tool_calls=[call]), ToolMessage("2", tool_call_id="c1"))
    await run(job, ScriptedEngine(tokenizer=Recording()))
    assert seen[1]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    ]
    assert seen[2] == {"role": "tool", "content": "2", "tool_call_id": "c1"}


async def test_choices_are_numbered_prompt_major() -> None:
    events, _ = await run(completion("a", (98,), n=2, best_of=2), ScriptedEngine(echoes))
    assert texts(events) == {0: "a", 1: "a", 2: "b", 3: "b"}


async def test_a_stop_string_ends_one_choice_and_frees_its_row() -> None:
    engine = ScriptedEngine(says("one. two", "one two"))
    events, _ = await run(completion(n=2, best_of=2, stop=(".",)), engine)
    assert texts(events) == {0: "one", 1: "one two"}
    usage = events[-1].usage
    assert usage.completion_tokens == len("one.") + len("one two") + 1


async def test_echo_gives_the_prompt_back_and_scores_it() -> None:
    events, _ = await run(completion("Hi", echo=True, max_tokens=0, logprobs=1), ScriptedEngine())
    assert texts(events) == {0: "Hi"}
    scored = events[1].logprobs
    assert [entry.logprob for entry in scored] == [None, -0.5, -0.5]
    assert events[2] == Finished(0, "length")


async def test_special_tokens_of_an_echo_are_shown_where_they_were_written() -> None:
    class Reading(ByteTokenizer):
        async def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
            return [BOS, *(EOS if it == "|" else ord(it) for it in text.replace("</s>", "|"))]

    job = completion("a</s>b", echo=True, max_tokens=0, logprobs=0)
    events, _ = await run(job, ScriptedEngine(tokenizer=Reading()))
    assert events[1].text == "a</s>b"
    shown = [(entry.text, entry.shown) for entry in events[1].logprobs]
    assert shown == [("<s>", False), ("a", True), ("</s>", True), ("b", True)]
    as_ids = completion((BOS, 97, EOS, 98), echo=True, max_tokens=0, logprobs=0)
    assert (await run(as_ids, ScriptedEngine(tokenizer=Reading())))[0][1] == events[1]


@given(st.lists(st.sampled_from([BOS, EOS, 97, 98, 195, 169, 32]), max_size=8))
async def test_token_ids_are_echoed_as_the_text_that_has_them(ids: list[int]) -> None:
    job = completion(tuple(ids), echo=True, max_tokens=0, logprobs=0)
    events, _ = await run(job, ScriptedEngine())
    own = ids[1:] if ids[:1] == [BOS] else ids
    assert events[1].text == await ByteTokenizer().decode(tuple(own))
    shown = [entry for entry in events[1].logprobs if entry.shown]
    assert b"".join(entry.bytes for entry in shown).decode(errors="replace") == events[1].text


async def test_the_space_that_a_tokenizer_puts_before_a_text_is_not_in_its_echo() -> None:
    class Spaced(ByteTokenizer):
        async def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
            return list(f" {text}".encode())

    job = completion("é!", echo=True, max_tokens=0, logprobs=0)
    events, _ = await run(job, ScriptedEngine(tokenizer=Spaced()))
    assert events[1].text == "é!"
    assert b"".join(entry.bytes for entry in events[1].logprobs).decode() == "é!"


async def test_what_is_filled_in_ends_with_the_marks_of_code_models() -> None:
    class Coder(ByteTokenizer):
        async def fill_in_middle(self, prefix: str, suffix: str) -> list[int]:
            return [*prefix.encode(), 0, *suffix.encode()]

    engine = ScriptedEngine(says("x\x07y"), tokenizer=Coder(added={"<|file_sep|>": 7}))
    await run(completion("a", suffix="b"), engine)
    assert engine.submitted[0].prompt == (97, 0, 98)
    assert engine.submitted[0].stop_ids == {EOS, 7}
    await run(completion("a", suffix="b", ignore_eos=True), engine)
    await run(completion("a"), engine)
    assert [sequence.stop_ids for sequence in engine.submitted[1:]] == [frozenset(), frozenset({EOS})]


async def test_echo_of_token_ids_is_their_text() -> None:
    events, _ = await run(completion((72, 105), echo=True, max_tokens=0), ScriptedEngine())
    assert texts(events) == {0: "Hi"}


async def test_an_empty_prompt_starts_from_the_beginning_of_sequence() -> None:
    engine = ScriptedEngine()
    await run(completion(()), engine)
    assert engine.submitted[0].prompt == (BOS,)


async def test_best_of_answers_the_likeliest_and_counts_them_all() -> None:
    class Ranked(ScriptedEngine):
        def generate(self, sequences: tuple[Sequence, ...]) -> ScriptedStream:
            stream = super().generate(sequences)
            means = {0: -3.0, 1: -1.0, 2: -2.0}
            for (number, row), tokens in list(stream.rows.items()):
                stream.rows[number, row] = iter([_with(token, means[row]) for token in _until_end(tokens)])
            return stream

    engine = Ranked(says("worst", "best", "middle"))
    events, _ = await run(completion(n=2, best_of=3), engine)
    assert texts(events) == {0: "best", 1: "middle"}
    assert [event.index for event in events if isinstance(event, Finished)] == [0, 1]
    assert not any(delta.logprobs for delta in events if isinstance(delta, Delta))
    assert events[-1].usage.completion_tokens == len("worstbestmiddle") + 3


def _until_end(tokens: Iterator[Any]) -> Iterator[Token]:
    for token in tokens:
        yield token
        if token.finish is not None:
            return


def _with(token: Token, logprob: float) -> Token:
    return replace(token, logprob=logprob)


@pytest.mark.parametrize(
    ("job", "param", "code"),
    [
        (completion("x" * 4095, max_tokens=1), "prompt", "context_length_exceeded"),
        (completion("x" * 4095, max_tokens=None), "prompt", "context_length_exceeded"),
        (completion("x" * 4096, max_tokens=0), "prompt", "context_length_exceeded"),
        (completion("x" * 5000, max_tokens=1), "prompt", "context_length_exceeded"),
        (chat(UserMessage("x" * 5000)), "messages", "context_length_exceeded"),
        (completion((72, 999)), "prompt", None),
        (completion(stop_token_ids=(999,)), "stop_token_ids", None),
        (completion(sampling=Sampling(logit_bias=((-1, 5.0),))), "logit_bias", None),
        (completion("a", suffix="b"), "suffix", None),
        (completion((72,), suffix="b"), "suffix", None),
    ],
)
async def test_what_the_model_cannot_do_is_refused_before_anything_is_computed(
    job: CompletionJob | ChatJob, param: str, code: str | None
) -> None:
    engine = ScriptedEngine()
    with pytest.raises(InvalidRequest) as refused:
        await run(job, engine)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert not engine.submitted


async def test_a_context_that_is_too_small_is_told_with_both_numbers() -> None:
    with pytest.raises(InvalidRequest, match=r"4096 tokens; 4096 in the prompt leave no room"):
        await run(completion("x" * 4095, max_tokens=200), ScriptedEngine())


@given(prompt=st.integers(0, 60), context=st.integers(1, 64), limit=st.none() | st.integers(0, 90))
async def test_a_limit_is_an_upper_bound_and_only_a_prompt_can_be_too_long(
    prompt: int, context: int, limit: int | None
) -> None:
    engine = ScriptedEngine(says("y" * 100), context_length=context)
    job = completion("x" * prompt, max_tokens=limit)
    left = context - (prompt + 1)
    if left < (0 if limit == 0 else 1):
        with pytest.raises(InvalidRequest, match="leave no room"):
            await run(job, engine)
        return
    events, _ = await run(job, engine)
    made = left if limit is None else min(limit, left)
    assert [event.reason for event in events if isinstance(event, Finished)] == ["length"]
    assert events[-1].usage.completion_tokens == made


class Picky(ByteTokenizer):
    """A template that goes through the items of arguments, as many do; ``refuses`` those with anything."""

    refuses = False

    async def render_chat(self, messages: list[dict[str, Any]], **options: Any) -> Rendered:
        for message in messages:
            for call in message.get("tool_calls", ()):
                arguments = call["function"]["arguments"]
                if not isinstance(arguments, dict) or (self.refuses and arguments):
                    raise InvalidRequest("The chat template refuses these messages.", param="messages")
                message["content"] += "".join(f"<{name}>{value}" for name, value in arguments.items())
        return await super().render_chat(messages, **options)


def called(arguments: str, *, older: bool = False) -> ChatJob:
    function = FunctionCall("f", arguments)
    calls = {"function_call": function} if older else {"tool_calls": [ToolCall("c1", function)]}
    return chat(AssistantMessage(None, **calls), UserMessage("And?"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(arguments=st.text(max_size=30) | JSON.map(json.dumps) | st.text(alphabet="{}[]\"':,a 1", max_size=20), older=...)
async def test_no_arguments_of_an_earlier_call_block_a_conversation(arguments: str, older: bool) -> None:
    for tokenizer in (Picky(), ByteTokenizer()):
        engine = ScriptedEngine(says("ok"), tokenizer=tokenizer)
        events, _ = await run(called(arguments, older=older), engine)
        assert texts(events) == {0: "ok"}


async def test_arguments_that_are_no_object_reach_a_template_as_they_are_if_it_takes_them() -> None:
    seen = []

    class Seeing(ByteTokenizer):
        async def render_chat(self, messages: list[dict[str, Any]], **options: Any) -> Rendered:
            seen.append(messages[0]["tool_calls"][0]["function"]["arguments"])
            return await super().render_chat(messages, **options)

    for written, told in [("{'a': 1}", "{'a': 1}"), ('{"a": 1}', {"a": 1}), ("[1]", [1]), ("", {}), (" ", {})]:
        await run(called(written), ScriptedEngine(tokenizer=Seeing()))
        assert seen.pop() == told
    engine = ScriptedEngine(tokenizer=Picky())
    await run(called("{'a': 1}"), engine)
    assert b"<arguments>{'a': 1}" in bytes(token for token in engine.submitted[0].prompt if token < BOS)


async def test_arguments_that_no_template_takes_are_refused_by_the_name_of_their_call() -> None:
    tokenizer = Picky()
    tokenizer.refuses = True
    with pytest.raises(InvalidRequest, match="call 'c1' of f are no JSON object") as refused:
        await run(called("not JSON"), ScriptedEngine(tokenizer=tokenizer))
    assert refused.value.param == "messages"
    with pytest.raises(InvalidRequest, match="The chat template refuses"):
        await run(called('{"a": 1}'), ScriptedEngine(tokenizer=tokenizer))


async def test_a_model_without_a_template_points_to_completions() -> None:
    engine = ScriptedEngine(tokenizer=ByteTokenizer(has_chat_template=False))
    with pytest.raises(InvalidRequest, match="/v1/completions"):
        await run(chat(UserMessage("hi")), engine)


async def test_the_end_is_told_together() -> None:
    run = GenerationStrategy().run(Leased(ScriptedEngine(says("ab"))).lease(), completion())
    *_, last = [events async for events in run]
    assert [type(event) for event in last[-2:]] == [Finished, Completed]


async def test_nothing_is_taken_before_the_first_event_is_asked_for() -> None:
    held = Leased(ScriptedEngine())
    events = GenerationStrategy().run(held.lease(), completion())
    assert not held.open
    await events.aclose()


async def test_a_reader_that_leaves_frees_rows_and_lease() -> None:
    engine = ScriptedEngine(says("a long answer"))
    held = Leased(engine)
    async with aclosing(GenerationStrategy().run(held.lease(), completion())) as told:
        async for events in told:
            if isinstance(events[0], Delta):
                break
    assert not engine.streams
    assert not held.open


async def test_an_engine_failure_reaches_the_reader_and_everything_is_given_back() -> None:
    engine = ScriptedEngine(says("abc"))
    held = Leased(engine)
    told = GenerationStrategy().run(held.lease(), completion())
    (started,) = await anext(told)
    assert isinstance(started, Started)
    engine.fail()
    with pytest.raises(EngineFailed):
        await anext(told)
    assert not held.open
    assert not any(isinstance(event, Completed) for event in [event async for events in told for event in events])
