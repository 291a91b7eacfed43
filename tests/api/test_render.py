"""What goes over the wire, compared byte by byte with files that a person can read."""

import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.api.write.render_chat import ChatRenderer
from app.api.write.render_completion import CompletionRenderer
from app.api.write.sse import DONE, ASGIEventStream, Source
from app.api.write.transcript import Head, Transcript
from app.errors import EngineFailed
from app.generation.events import Delta, Event, Finished, TokenLogprob, ToolCallArguments, ToolCallStarted
from app.generation.meter import Meter
from app.schemas.chat import ChatRequest
from app.schemas.completions import CompletionRequest
from tests.support.asgi import ANYWHERE, forever, never
from tests.support.events import COMPLETED, STARTED, token, told

GOLDEN = Path(__file__).parent / "golden"
HEAD = Head("1", 1700000000, STARTED.model, STARTED.fingerprint)
SCORED: list[Event] = [
    STARTED,
    Delta(0, "Der Preis", (token("Der", None), token(" Preis", -1.25, (" Preis", -1.25), (" Weg", -2.0)))),
    Delta(0, "", (token("�", -0.1, raw=b"\xe2\x82"),)),
    Delta(0, "€", (token("�", float("-inf"), ("x", float("-inf")), raw=b"\xac"),)),
    Delta(0, "!", (token("!", -0.5, ("?", -0.25)),)),
    Finished(0, "length"),
    COMPLETED,
]
PLAIN: list[Event] = [
    STARTED,
    Delta(1, " Lyon"),
    Delta(0, " Paris"),
    Delta(0, ".\n"),
    Finished(0, "stop"),
    Finished(1, "length"),
    COMPLETED,
]
CALLING: list[Event] = [
    STARTED,
    Delta(0, "", reasoning="Which city?"),
    Delta(0, "Let me look."),
    ToolCallStarted(0, 0, "call_1", "get_weather"),
    ToolCallArguments(0, 0, '{"city": '),
    ToolCallArguments(0, 0, '"Paris"}'),
    ToolCallStarted(0, 1, "call_2", "now"),
    ToolCallArguments(0, 1, "{}"),
    Finished(0, "tool_calls"),
    COMPLETED,
]
FUNCTIONS = {"functions": [{"name": "get_weather"}]}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
CASES: dict[str, tuple[str, dict[str, Any], list[Event]]] = {
    "completion": ("completion", {"n": 2}, PLAIN),
    "completion_usage": ("completion", STREAM, [STARTED, *told(" Paris"), COMPLETED]),
    "completion_logprobs": ("completion", {"logprobs": 2, "echo": True}, SCORED),
    "chat": ("chat", {"n": 2}, PLAIN),
    "chat_usage": ("chat", STREAM, [STARTED, *told(" Paris"), COMPLETED]),
    "chat_empty": ("chat", {}, [STARTED, Finished(0, "stop"), COMPLETED]),
    "chat_calls": ("chat", {}, CALLING),
    "chat_calls_legacy": ("chat", FUNCTIONS, [*CALLING[:2], *CALLING[3:6], *CALLING[8:]]),
    "chat_logprobs": ("chat", {"logprobs": True, "top_logprobs": 2}, SCORED),
}


def renderer(kind: str, fields: dict[str, Any]) -> Any:
    if kind == "completion":
        return CompletionRenderer(msgspec.convert(fields, CompletionRequest), Meter(), HEAD)
    messages = [{"role": "user", "content": "x"}]
    return ChatRenderer(msgspec.convert({"messages": messages, **fields}, ChatRequest), Meter(), HEAD)


async def stream(kind: str, fields: dict[str, Any], events: list[Event]) -> bytes:
    told_by, written = renderer(kind, fields), []

    async def items() -> AsyncGenerator[Any]:
        yield events

    async def write(message: Any) -> None:
        written.append(message.get("body", b""))

    source = Source(items(), lambda told: [chunk for event in told for chunk in told_by.chunks(event)], never)
    await ASGIEventStream(source, keep_alive=9)(ANYWHERE, forever, write)
    assert written[-2:] == [b"".join(written[:-1]), DONE]  # what is told together is written together
    return b"".join(written)


@pytest.mark.parametrize("name", CASES)
async def test_streams_are_what_the_file_says(name: str) -> None:
    assert await stream(*CASES[name]) == (GOLDEN / f"{name}.sse").read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_whole_answers_are_what_the_file_says(name: str) -> None:
    kind, fields, events = CASES[name]
    answer = msgspec.json.encode(renderer(kind, fields).whole(Transcript.of(events)))
    assert msgspec.json.format(answer, indent=1) + b"\n" == (GOLDEN / f"{name}.json").read_bytes()


def test_every_golden_file_is_used() -> None:
    assert {path.stem for path in GOLDEN.iterdir() if path.is_file()} == set(CASES)


@pytest.mark.parametrize("events", [[STARTED], [STARTED, Delta(0, "a"), COMPLETED], [STARTED, *told("a")]])
@pytest.mark.parametrize("kind", ["completion", "chat"])
def test_an_answer_that_ended_early_is_no_answer(kind: str, events: list[Any]) -> None:
    with pytest.raises(EngineFailed, match="ended early"):
        renderer(kind, {}).whole(Transcript.of(events))


def test_offsets_count_what_the_text_shows() -> None:
    special = TokenLogprob("<|im_start|>", b"<|im_start|>", -0.5, (), False)
    broken, end = token("�", raw=b"\xe6"), token("</s>")
    events: list[Event] = [
        STARTED,
        Delta(0, "Hi", (special, token("Hi"))),
        Delta(0, "�mpt�", (broken, token("mpt"), token("�"))),
        Delta(0, "€", (token("�", raw=b"\xe2"), token("�", raw=b"\x82\xac"))),
        Delta(0, "", (msgspec.structs.replace(end, shown=False),)),
        Finished(0, "stop"),
        COMPLETED,
    ]
    (choice,) = renderer("completion", {"logprobs": 0}).whole(Transcript.of(events)).choices
    assert choice.logprobs.tokens == [
        *("<|im_start|>", "Hi", r"bytes:\xe6", "mpt", "�", r"bytes:\xe2", r"bytes:\x82\xac", "</s>")
    ]
    assert choice.logprobs.text_offset == [0, 0, 2, 3, 6, 7, 7, 8]
    assert [choice.text[at:] for at in choice.logprobs.text_offset[3:5]] == ["mpt�€", "�€"]


async def test_streamed_offsets_are_those_of_the_whole_text() -> None:
    whole = renderer("completion", {"logprobs": 1}).whole(Transcript.of(SCORED))
    frames = (await stream("completion", {"logprobs": 1}, SCORED)).decode()
    streamed = [int(n) for ns in re.findall(r'"text_offset":\[([\d,]*)\]', frames) for n in ns.split(",") if n]
    assert streamed == whole.choices[0].logprobs.text_offset == [0, 3, 9, 9, 10]
    text = whole.choices[0].text
    assert [text[at] for at in streamed] == ["D", " ", "€", "€", "!"]
