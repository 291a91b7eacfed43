"""Conversations that are too long for the context, without their oldest messages."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.errors import InvalidRequest
from app.generation import chat
from app.generation.events import Completed
from app.generation.job import ChatJob, Decoding
from app.generation.strategy import GenerationStrategy
from app.generation.truncation import ROOM, STEP, fitting
from app.schemas.messages import AssistantMessage, DeveloperMessage, Message, SystemMessage, ToolMessage, UserMessage
from app.schemas.sampling import Sampling
from tests.generation.test_strategy import Leased
from tests.support.scripted import ScriptedEngine, says

CONTEXT = 400
KINDS: dict[str, Callable[[str], Message]] = {
    "u": UserMessage,
    "a": AssistantMessage,
    "t": lambda text: ToolMessage(text, "call_1"),
    "s": SystemMessage,
}


def job(*messages: Any, truncated: bool = True, max_tokens: int | None = None) -> ChatJob:
    return ChatJob(
        decoding=Decoding(sampling=Sampling(), max_tokens=max_tokens),
        messages=messages,
        truncated=truncated,
        field="input",
    )


def engine() -> ScriptedEngine:
    return ScriptedEngine(says("ok"), context_length=CONTEXT)


async def length(it: ChatJob) -> int:
    made = engine()
    return len(await chat.encoded(made.tokenizer, await chat.rendered(made.tokenizer, it)))


@settings(deadline=None)  # machines are slow at times
@given(
    st.lists(st.sampled_from(["system", "developer"]), max_size=2),
    st.lists(st.tuples(st.sampled_from("uats"), st.integers(0, 120)), min_size=1, max_size=30),
    st.none() | st.integers(1, 200),
)
async def test_what_is_left_fits_and_is_the_end_of_the_conversation_after_its_head(
    head: list[str], turns: list[tuple[str, int]], max_tokens: int | None
) -> None:
    heads = [SystemMessage("S") if kind == "system" else DeveloperMessage("D") for kind in head]
    if turns[0][0] in "st":
        turns = [("u", 3), *turns]
    messages = [KINDS[kind](chr(97 + at % 26) * size) for at, (kind, size) in enumerate(turns)]
    whole = job(*heads, *messages, max_tokens=max_tokens)
    left = await fitting(engine(), whole)
    kept = list(left.messages)
    assert kept[: len(heads)] == heads
    tail = kept[len(heads) :]
    assert tail == messages[len(messages) - len(tail) :]
    room = min(CONTEXT // ROOM, max_tokens or CONTEXT)
    if await length(left) + room > CONTEXT:
        last = max(at for at, (kind, _) in enumerate(turns) if kind != "t")
        assert left == whole
        assert last == 0 or await length(job(*heads, *messages[last:])) + room > CONTEXT, (
            "nothing else would have fitted"
        )
    elif left != whole:
        assert not isinstance(tail[0], ToolMessage)
        assert await length(whole) + room > CONTEXT
    assert await fitting(engine(), replace(whole, truncated=False)) == replace(whole, truncated=False)


async def test_the_beginning_stays_for_some_turns() -> None:
    turns = [UserMessage(f"{number:02d}" * 10) for number in range(40)]
    begins = set()
    for count in range(20, 40):
        left = await fitting(engine(), job(SystemMessage("S"), *turns[:count]))
        begins.add(left.messages[1].content)
    assert len(begins) <= 20 / STEP + 2


@pytest.mark.parametrize("truncated", [True, False])
async def test_a_long_conversation_is_answered_where_that_is_asked_for(truncated: bool) -> None:
    asked = job(*[UserMessage("x" * 50) for _ in range(20)], truncated=truncated)
    made = engine()
    run = GenerationStrategy().run(Leased(made).lease(), asked)
    if not truncated:
        with pytest.raises(InvalidRequest) as refused:
            await anext(run)
        assert (refused.value.param, refused.value.code) == ("input", "context_length_exceeded")
        return
    events = [event async for together in run for event in together]
    assert isinstance(events[-1], Completed)
    assert len(made.submitted[0].prompt) <= CONTEXT
    assert await GenerationStrategy().count(Leased(made).lease(), asked) == len(made.submitted[0].prompt)


async def test_one_message_that_is_too_long_is_refused() -> None:
    run = GenerationStrategy().run(Leased(engine()).lease(), job(UserMessage("a"), UserMessage("x" * 500)))
    with pytest.raises(InvalidRequest) as refused:
        await anext(run)
    assert refused.value.code == "context_length_exceeded"
