"""Events as Anthropic's clients read them: golden files, any split, failures and statuses, pings."""

import asyncio
import re
from collections.abc import AsyncGenerator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.read.anthropic import messages_job
from app.api.seal import Seal
from app.api.write.render_anthropic import AnthropicDialect, AnthropicRenderer
from app.api.write.sse import ASGIEventStream, Source
from app.api.write.transcript import Head, Transcript
from app.engine.base import Token
from app.engine.text import Marks
from app.errors import EngineFailed, InvalidRequest, QueueFull, SwitchyardError, Unavailable
from app.generation.events import Cached, Completed, Delta, Event, Finished, Started, ToolCallArguments, ToolCallStarted
from app.generation.plan import Plan
from app.schemas.anthropic import MessagesRequest
from app.schemas.errors import ErrorBody, ErrorDetail
from app.schemas.usage import CompletionTokensDetails, PromptTokensDetails, Usage
from app.settings import ModelEntry, Settings
from tests.api.conftest import Serve
from tests.support.asgi import ANYWHERE, exchange, forever, never, request
from tests.support.events import COMPLETED, STARTED, ScriptedStrategy
from tests.support.scripted import ByteTokenizer

CACHED = Cached(2)
GOLDEN = Path(__file__).parent / "golden_anthropic"
SEAL = Seal(("key",))
HEAD = Head("1", 1700000000, STARTED.model, STARTED.fingerprint)
ASK = {"model": "tiny", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
THINK = {"thinking": {"type": "adaptive"}}
CALLING: list[Event] = [
    STARTED,
    CACHED,
    Delta(0, "", reasoning="Which "),
    Delta(0, "\n\n", reasoning="city?"),
    Delta(0, "Let me look.\n"),
    ToolCallStarted(0, 0, "call_1", "get_weather"),
    ToolCallArguments(0, 0, '{"city": '),
    ToolCallArguments(0, 0, '"Paris"}'),
    Delta(0, "\n"),
    ToolCallStarted(0, 1, "call_2", "now"),
    Finished(0, "tool_calls"),
    Completed(Usage(30, 12, 42, PromptTokensDetails(20), CompletionTokensDetails(4))),
]
CASES: dict[str, tuple[dict[str, Any], list[Event]]] = {
    "text": ({}, [STARTED, CACHED, Delta(0, " Paris"), Delta(0, ".\n"), Finished(0, "stop"), COMPLETED]),
    "empty": ({}, [STARTED, CACHED, Delta(0, " "), Finished(0, "stop"), COMPLETED]),
    "calls": (THINK, CALLING),
    "calls_thought_hidden": ({}, CALLING),
    "calls_thought_omitted": ({"thinking": {"type": "adaptive", "display": "omitted"}}, CALLING),
    "stop_sequence": ({}, [STARTED, CACHED, Delta(0, "a"), Finished(0, "stop", stop="END"), COMPLETED]),
}


def asked(**fields: Any) -> MessagesRequest:
    return msgspec.convert({**ASK, **fields}, MessagesRequest)


def renderer(**fields: Any) -> AnthropicRenderer:
    return AnthropicRenderer(asked(**fields), SEAL, HEAD)


def whole(events: list[Any], **fields: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(renderer(**fields).whole(Transcript.of(events))))


def streamed(events: list[Any], **fields: Any) -> list[Any]:
    told_by = renderer(**fields)
    return [msgspec.json.decode(msgspec.json.encode(it)) for event in events for it in told_by.chunks(event)]


def unsigned(raw: bytes) -> bytes:
    """Without signatures, whose deflated text is another with every zlib."""
    return re.sub(rb"sy1\.[\w=-]+\.[\w=-]+", b"SIGNATURE", raw)


def accumulated(events: list[dict[str, Any]]) -> Any:
    """What a client makes of a stream; fails where blocks do not begin, grow and end in their order."""
    message: Any = None
    open_: Any = None
    begun = 0
    for event in events:
        match event["type"]:
            case "message_start":
                assert message is None
                message = event["message"]
            case "content_block_start":
                assert open_ is None
                assert event["index"] == len(message["content"])
                open_, begun = event["content_block"], begun + 1
                message["content"].append(open_)
                if open_["type"] == "tool_use":
                    open_["input"] = ""
            case "content_block_delta":
                assert event["index"] == len(message["content"]) - 1
                kind = event["delta"].pop("type")
                ((_, value),) = event["delta"].items()
                key = {"input_json_delta": "input", "signature_delta": "signature", "text_delta": "text"}.get(kind)
                open_[key or "thinking"] += value
            case "content_block_stop":
                assert event["index"] == len(message["content"]) - 1
                if open_["type"] == "tool_use":
                    open_["input"] = msgspec.json.decode(open_["input"] or "{}")
                open_ = None
            case "message_delta":
                assert open_ is None
                message |= event["delta"] | {"usage": event["usage"]}
            case "message_stop" | "ping":
                pass
            case other:
                raise AssertionError(other)
    assert events[-1] == {"type": "message_stop"}
    return message


@pytest.mark.parametrize("name", CASES)
async def test_streams_are_what_the_file_says(name: str) -> None:
    fields, events = CASES[name]
    told_by, written = renderer(**fields), []

    async def items() -> AsyncGenerator[Any]:
        yield events

    async def write(message: Any) -> None:
        written.append(message.get("body", b""))

    source = Source(items(), lambda told: [it for event in told for it in told_by.chunks(event)], never, ending=b"")
    await ASGIEventStream(source, keep_alive=9)(ANYWHERE, forever, write)
    assert unsigned(b"".join(written)) == (GOLDEN / f"{name}.sse").read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_whole_answers_are_what_the_file_says(name: str) -> None:
    fields, events = CASES[name]
    answer = msgspec.json.encode(renderer(**fields).whole(Transcript.of(events)))
    assert unsigned(msgspec.json.format(answer, indent=1)) + b"\n" == (GOLDEN / f"{name}.json").read_bytes()


def test_every_golden_file_is_used() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


parts = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.text("a \n€", min_size=1, max_size=6)),
        st.tuples(st.just("think"), st.text("b \n", min_size=1, max_size=6)),
        st.tuples(st.just("call"), st.sampled_from(['{"a": 1}', "{}", ""])),
    ),
    max_size=7,
)


def cut(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(it % (len(text) + 1) for it in cuts)})
    return [text[a:b] for a, b in pairwise(places)]


def events_of(told: list[tuple[str, str]], cuts: list[int]) -> list[Event]:
    """The parts as events, each text in the pieces that ``cuts`` makes of it."""
    events: list[Event] = [STARTED, CACHED]
    calls = 0
    for kind, text in told:
        if kind == "call":
            events.append(ToolCallStarted(0, calls, f"call_{calls}", "look"))
            events += [ToolCallArguments(0, calls, piece) for piece in cut(text, cuts)]
            calls += 1
        else:
            events += [Delta(0, piece) if kind == "say" else Delta(0, "", reasoning=piece) for piece in cut(text, cuts)]
    return [*events, Finished(0, "stop"), COMPLETED]


@settings(deadline=None)
@given(parts, st.lists(st.integers(0, 9), max_size=4), st.sampled_from([None, "summarized", "omitted"]))
def test_any_split_of_the_text_gives_the_same_blocks_streamed_and_whole(
    told: list[tuple[str, str]], cuts: list[int], display: str | None
) -> None:
    fields = {} if display is None else {"thinking": {"type": "adaptive", "display": display}}
    events, unsplit = events_of(told, cuts), events_of(told, [])
    assert accumulated(streamed(events, **fields)) == whole(events, **fields) == whole(unsplit, **fields)
    shown = whole(events, **fields)["content"]
    assert all(it["text"].strip() for it in shown if it["type"] == "text")
    assert (display is not None) or not any(it["type"] == "thinking" for it in shown)


@pytest.mark.parametrize("display", ["summarized", "omitted"])
def test_a_thought_is_signed_so_that_it_can_come_back(display: str) -> None:
    thinking, *_ = whole(CALLING, thinking={"type": "enabled", "budget_tokens": 5, "display": display})["content"]
    assert SEAL.read(thinking["signature"]) == "Which city?"
    assert thinking["thinking"] == ("" if display == "omitted" else "Which city?")


@pytest.mark.parametrize(
    ("reason", "stop", "tokens", "expected"),
    [
        ("stop", None, 4, ("end_turn", None)),
        ("stop", "END", 4, ("stop_sequence", "END")),
        ("tool_calls", None, 4, ("tool_use", None)),
        ("length", None, 9, ("max_tokens", None)),
        ("length", None, 4, ("model_context_window_exceeded", None)),
        ("content_filter", None, 4, ("refusal", None)),
    ],
)
def test_why_an_answer_ended(
    reason: Literal["stop", "length", "tool_calls", "content_filter"],
    stop: str | None,
    tokens: int,
    expected: tuple[str, str | None],
) -> None:
    end = [Finished(0, reason, stop=stop), Completed(Usage(3, tokens, 3 + tokens))]
    told = whole([STARTED, CACHED, *end])
    assert (told["stop_reason"], told["stop_sequence"]) == expected
    assert streamed([STARTED, CACHED, *end])[-2]["delta"] == {"stop_reason": expected[0], "stop_sequence": expected[1]}


def test_usage_tells_what_was_cached_and_adds_up_to_the_prompt() -> None:
    usage = whole(CALLING)["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]) == (
        10,
        20,
        0,
    )
    assert (usage["output_tokens"], usage["output_tokens_details"]) == (12, {"thinking_tokens": 4})


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "3", '{"a": 1} x'])
def test_arguments_that_are_no_object_are_told_as_what_they_are(arguments: str) -> None:
    events = [STARTED, CACHED, ToolCallStarted(0, 0, "call_0", "f"), ToolCallArguments(0, 0, arguments)]
    (block,) = whole([*events, Finished(0, "length"), COMPLETED])["content"]
    assert block["input"] == {"INVALID_JSON": arguments}


async def test_silence_is_filled_with_pings_before_and_while_an_answer_comes() -> None:
    dialect = AnthropicDialect(asked(), SEAL, "r")
    assert msgspec.json.encode(dialect.silence()) == b'[{"type":"ping"}]'
    assert dialect.quiet_seconds < 20
    assert msgspec.json.encode(dialect.opening()) == b'[{"type":"ping"}]'


@pytest.mark.parametrize(
    ("failure", "status", "expected"),
    [
        (InvalidRequest("tools: wrong.", param="tools"), 400, ("invalid_request_error", "tools: wrong.")),
        (InvalidRequest("Wrong.", param="tools.0"), 400, ("invalid_request_error", "tools.0: Wrong.")),
        (
            InvalidRequest("It holds 5 tokens.", param="messages", code="context_length_exceeded"),
            400,
            ("invalid_request_error", "prompt is too long: It holds 5 tokens."),
        ),
        (QueueFull("Full.", retry_after=3.0), 529, ("overloaded_error", "Full.")),
        (QueueFull("Enough.", code="rate_limit_exceeded"), 429, ("rate_limit_error", "Enough.")),
        (Unavailable("Not now.", retry_after=2.0), 503, ("api_error", "Not now.")),
        (EngineFailed("Broke."), 500, ("api_error", "Broke.")),
    ],
)
@pytest.mark.parametrize("late", [False, True])
async def test_failures_have_anthropics_shape_and_status(
    serve: Serve, failure: SwitchyardError, status: int, expected: tuple[str, str], late: bool
) -> None:
    body = {**ASK, "stream": late}
    steps = [STARTED, CACHED, failure] if late else [failure]
    answer = await request(serve(ScriptedStrategy(*steps)), "POST", "/v1/messages", body)
    if late:
        assert answer.status == 200
        name, data = answer.body.rstrip().split(b"\n\n")[-1].split(b"\n")
        assert name == b"event: error"
        told = msgspec.json.decode(data.removeprefix(b"data: "))
    else:
        assert answer.status == status
        told = answer.json()
        assert answer.headers.get("retry-after") == (
            None if failure.retry_after is None else f"{failure.retry_after:.0f}"
        )
    assert (told["type"], told["request_id"]) == ("error", answer.headers["request-id"])
    assert (told["error"]["type"], told["error"]["message"]) == expected
    details = {"error_code": failure.code, "param": failure.param}
    assert told["error"]["details"] == ({key: value for key, value in details.items() if value is not None} or None)
    assert answer.headers["request-id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("asked", "headers", "expected"),
    [
        (("POST", "/v1/messages", {"max_tokens": 1}), {}, (400, "invalid_request_error")),
        (("POST", "/v1/messages", {**ASK, "max_tokens": "9"}), {}, (400, "invalid_request_error")),
        (("POST", "/v1/messages", b"{"), {}, (400, "invalid_request_error")),
        (("POST", "/v1/messages", ASK | {"model": "nothing"}), {}, (404, "not_found_error")),
        (("POST", "/v1/messages", b" " * 2000), {}, (413, "request_too_large")),
        (("GET", "/v1/messages"), {}, (405, "invalid_request_error")),
        (("GET", "/v1/nothing"), {"anthropic-version": "2023-06-01"}, (404, "not_found_error")),
        (("POST", "/v1/messages", ASK), {"x-api-key": "wrong"}, (401, "authentication_error")),
        (("POST", "/v1/messages", ASK), {"origin": "https://elsewhere.example"}, (403, "permission_error")),
    ],
)
async def test_refusals_of_every_part_of_the_service_have_that_shape(
    serve: Serve, asked: Any, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    keys = ("right",) if headers.get("x-api-key") else ()
    app = serve(settings=Settings(max_body_bytes=1000, api_keys=keys))
    method, path, body = (*asked, None)[:3]
    answer = await request(app, method, path, body, headers)
    told = answer.json()
    assert (answer.status, told["error"]["type"]) == expected
    assert (told["type"], told["request_id"]) == ("error", answer.headers["request-id"])
    assert told["error"]["message"].endswith(".")


async def test_openais_clients_keep_their_shape(serve: Serve) -> None:
    answer = await request(serve(), "POST", "/v1/chat/completions", {})
    assert answer.error["param"] == "messages"
    assert "request-id" not in answer.headers


async def test_a_refusal_is_in_the_journal_in_its_own_words(serve: Serve) -> None:
    app = serve()
    refused = await request(app, "POST", "/v1/messages", {**ASK, "container": {}})
    assert refused.status == 400
    event = app.state.middleware._journal.entries()[0]
    assert (event.path, event.outcome, event.message) == (
        "/v1/messages",
        "refused",
        "container is refused: There are no containers; leave it out.",
    )


def test_a_failure_without_a_place_names_none() -> None:
    body = ErrorBody(ErrorDetail("Full.", "rate_limit_error", code="queue_full"))
    told: Any = AnthropicDialect(asked(), SEAL, "r").failure(body)
    assert told.error.message == "Full."


async def test_the_first_event_tells_what_was_cached_before_the_rest_is_computed(serve: Serve) -> None:
    gates = asyncio.Event(), asyncio.Event()
    started, cached = Started("org/tiny", "fp", 7), Cached(5)
    rest: list[Event] = [Delta(0, "x"), Finished(0, "stop"), COMPLETED]
    strategy = ScriptedStrategy(started, gates[0], cached, gates[1], rest)
    async with exchange(
        serve(strategy), "POST", "/v1/messages", msgspec.json.encode({**ASK, "stream": True})
    ) as client:
        assert await client.chunk() == b'event: ping\ndata: {"type":"ping"}\n\n'
        gates[0].set()
        first = await client.chunk()
        assert first is not None
        assert first.startswith(b"event: message_start\n")
        assert b'"input_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":5' in first
        gates[1].set()
        assert b"".join(await client.chunks()).endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert strategy.open == 0


SPOKEN = (
    "<think>\nI must look.\n</think>\n\nLet me look.\n"
    '<tool_call>\n{"name": "look", "arguments": {"at": "é€", "n": [1, {}]}}\n</tool_call>\n'
    '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'
)
"""What a model says that thinks, says something and calls twice."""


def said(text: str, cuts: list[int], stops: list[str]) -> list[Any]:
    """Its events, where its tokens bring ``text`` in the pieces that ``cuts`` makes of it, one or several at a time."""
    tool = {"name": "look", "input_schema": {"type": "object"}}
    job = messages_job(asked(tools=[tool], stop_sequences=stops, **THINK), ModelEntry(), SEAL)
    marks = Marks("<think>", "</think>")
    facts = ByteTokenizer(template_takes_tools=True, call_format="json_tools", thinking=marks).facts
    choice = Plan(facts, job).choice(0)
    tokens = [Token(0, 0, 1, text=piece) for piece in cut(text, cuts)] + [Token(0, 0, 2, finish="stop")]
    events: list[Event] = [STARTED, CACHED]
    for at in range(0, len(tokens), 1 + len(cuts) % 3):
        if choice.finished is None:
            events += choice.push(tokens[at : at + 1 + len(cuts) % 3])
    assert choice.finished is not None
    return [*events, Finished(0, choice.finished, stop=choice.stop), COMPLETED]


@pytest.mark.parametrize("stops", [[], ["look"], ["me l"]])
@settings(deadline=None)
@given(st.lists(st.integers(0, 300), max_size=40))
def test_any_split_of_the_tokens_gives_the_same_answer(stops: list[str], cuts: list[int]) -> None:
    events = said(SPOKEN, cuts, stops)
    told = whole(events, **THINK)
    assert accumulated(streamed(events, **THINK)) == told
    expected = whole(said(SPOKEN, [], stops), **THINK)
    for answer in (told, expected):
        assert all(
            block.pop("id", "toolu_").startswith("toolu_") for block in answer["content"]
        )  # drawn anew each time
    assert told == expected
    kinds = [block["type"] for block in expected["content"]]
    assert kinds == (["thinking", "text"] if stops else ["thinking", "text", "tool_use", "tool_use"])
    assert expected["stop_reason"] == ("stop_sequence" if stops else "tool_use")
