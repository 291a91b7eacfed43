"""``/v1/responses`` on the wire: events in their order, ids that agree, what is kept and for whom."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.read.response_tools import Called
from app.api.write import answer as answering
from app.api.write import response_dialect
from app.api.write.render_response import Manner, ResponseRenderer
from app.api.write.transcript import Head, Transcript
from app.errors import EngineFailed, InvalidRequest, QueueFull, Unavailable
from app.generation.events import (
    Delta,
    Event,
    Finished,
    ToolCallArguments,
    ToolCallStarted,
)
from app.schemas.responses import ResponseObject, ResponseReasoning, ResponseText
from app.schemas.structure import TextFormat
from app.settings import Settings
from tests.api.conftest import Serve
from tests.support.asgi import Answer, exchange, request
from tests.support.events import COMPLETED, STARTED, ScriptedStrategy, token, told

GOLDEN = Path(__file__).parent / "golden" / "responses"
URL = "/v1/responses"
BODY = {"model": "tiny", "input": "x"}
STREAMED = {**BODY, "stream": True}
LAST = {"response.completed", "response.incomplete", "response.failed"}
FULL: list[Event] = [
    STARTED,
    Delta(0, "", reasoning="Which "),
    Delta(0, "Let me", reasoning="city?"),
    Delta(0, " look."),
    ToolCallStarted(0, 0, "call_1", "ns__weather"),
    ToolCallArguments(0, 0, '{"city": '),
    ToolCallArguments(0, 0, '"Paris"}'),
    ToolCallStarted(0, 1, "call_2", "patch"),
    ToolCallArguments(0, 1, '{"input": "a\\nb"}'),
    Finished(0, "tool_calls"),
    COMPLETED,
]
SCORED: list[Event] = [
    STARTED,
    Delta(0, "Der", (token("Der", -1.5, ("Der", -1.5), ("Ein", -2.0)),)),
    Delta(0, "€", (token("�", -0.5, raw=b"\xe2\x82"), token("�", float("-inf"), raw=b"\xac"))),
    Finished(0, "length"),
    COMPLETED,
]
CALLED = {"ns__weather": Called("weather", "ns"), "patch": Called("patch", custom=True)}
CASES: dict[str, tuple[list[Event], dict[str, Any]]] = {
    "text": ([STARTED, *told(" Paris"), COMPLETED], {}),
    "full": (FULL, {"summed_up": True, "seal": lambda text: f"sealed {text}"}),
    "scored": (SCORED, {"logprobs": True}),
    "empty": ([STARTED, Finished(0, "stop"), COMPLETED], {}),
    "thought_cut": ([STARTED, Delta(0, "", reasoning="Hm"), Finished(0, "length"), COMPLETED], {}),
}


def renderer(**telling: Any) -> ResponseRenderer:
    response = ResponseObject(
        id="resp_" + "0" * 40,
        created_at=1700000000,
        status="in_progress",
        metadata={},
        model="tiny",
        output=[],
        parallel_tool_calls=True,
        reasoning=ResponseReasoning(),
        store=False,
        temperature=1,
        text=ResponseText(TextFormat()),
        tool_choice="auto",
        tools=[],
        top_logprobs=0,
        top_p=1,
        truncation="disabled",
    )
    asked: dict[str, Any] = {"called": CALLED, "logprobs": False, "summed_up": False, "seal": None} | telling
    made = ResponseRenderer(response, Manner(**asked))
    return made.begin(Head("1", 1, STARTED.model, STARTED.fingerprint))


def stream(told_events: list[Any] | Iterator[Any], telling: dict[str, Any]) -> list[Any]:
    made = renderer(**telling)
    return [*made.opening(), *(chunk for event in told_events for chunk in made.chunks(event))]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.write.render_response.time", lambda: 1700000001.5)


@pytest.mark.parametrize("name", CASES)
def test_streams_are_what_the_file_says(name: str) -> None:
    lines = [msgspec.json.encode(event) for event in stream(*CASES[name])]
    assert b"\n".join(lines) + b"\n" == (GOLDEN / f"{name}.jsonl").read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_a_whole_response_is_what_the_last_event_tells(name: str) -> None:
    told_events, telling = CASES[name]
    whole = renderer(**telling).whole(Transcript.of(told_events))
    assert whole == stream(told_events, telling)[-1].response


def test_every_golden_file_is_used() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == CASES.keys()


def checked(told_events: list[dict[str, Any]]) -> None:
    """The rules that every stream keeps, whatever is told."""
    assert [it["sequence_number"] for it in told_events] == list(range(len(told_events)))
    assert [it["type"] for it in told_events[:2]] == ["response.created", "response.in_progress"]
    assert [it["type"] for it in told_events if it["type"] in LAST] == [told_events[-1]["type"]]
    ids = {it["response"]["id"] for it in told_events if "response" in it}
    assert len(ids) == 1
    output = told_events[-1]["response"]["output"]
    texts: dict[Any, Any] = {}
    began: list[Any] = []
    for it in told_events:
        kind = it["type"]
        if kind == "response.output_item.added":
            assert it["output_index"] == len(began), "one item after the other"
            began.append(it["item"]["id"])
        elif kind == "response.output_item.done":
            assert it["item"] == output[it["output_index"]], "what is told of an item is what is answered"
        elif "item_id" in it:
            assert it["item_id"] == began[-1] == output[it["output_index"]]["id"]
        if kind.endswith(".delta"):
            texts[kind, it["item_id"]] = texts.get((kind, it["item_id"]), "") + it["delta"]
        elif kind in {f"response.{name}.done" for name in ("output_text", "reasoning_text", "function_call_arguments")}:
            whole = it.get("text", it.get("arguments"))
            assert texts.get((kind.replace("done", "delta"), it["item_id"]), "") == whole
    assert began == [item["id"] for item in output]
    assert len(set(began)) == len(began)


def pieces(text: str) -> st.SearchStrategy[list[str]]:
    """Ways to cut a text."""
    return st.lists(st.integers(0, len(text)), max_size=4).map(
        lambda cuts: [text[a:b] for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), len(text)], strict=True) if a < b]
    )


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("think"), st.text("ab \n", min_size=1, max_size=6)),
        st.tuples(st.just("say"), st.text("cdé\n", min_size=1, max_size=6)),
        st.tuples(
            st.sampled_from(["ns__weather", "patch", "other"]), st.sampled_from(['{"input": "é\\n"}', "{}", "{x"])
        ),
    ),
    max_size=6,
)


@settings(deadline=None)  # machines are slow at times
@given(STEPS, st.sampled_from(["stop", "length"]), st.booleans(), st.data())
def test_any_split_of_what_is_told_makes_the_same_response_by_the_same_rules(
    steps: list[Any], reason: Literal["stop", "length"], summed_up: bool, data: st.DataObject
) -> None:
    def story(cut: Callable[..., Any]) -> Iterator[Any]:
        calls = 0
        yield STARTED
        for kind, text in steps:
            if kind not in {"think", "say"}:
                yield ToolCallStarted(0, calls, f"call_{calls}", kind)
            for piece in cut(text):
                if kind == "think":
                    yield Delta(0, "", reasoning=piece)
                elif kind == "say":
                    yield Delta(0, piece)
                else:
                    yield ToolCallArguments(0, calls, piece)
            calls += kind not in {"think", "say"}
        yield Finished(0, "tool_calls" if calls and reason == "stop" else reason)
        yield COMPLETED

    telling = {"summed_up": summed_up, "seal": str.upper}
    split = stream(story(lambda text: data.draw(pieces(text))), telling)
    together = stream(story(lambda text: [text]), telling)
    assert split[-1].response == together[-1].response
    made = json.loads(msgspec.json.encode(split))
    checked(made)
    undone = [it.item for it in split if it.__class__.__name__ == "ItemDoneEvent"]
    assert undone == split[-1].response.output
    assert split[-1].response.status == ("incomplete" if reason == "length" else "completed")


async def test_a_stream_and_a_whole_response_say_the_same(serve: Serve) -> None:
    app = serve(ScriptedStrategy(STARTED, *told(" Pa", "ris"), COMPLETED))
    whole = (await request(app, "POST", URL, BODY)).json()
    streamed = events_of(await request(app, "POST", URL, STREAMED))
    checked(streamed)
    last = streamed[-1]["response"]
    for response in (whole, last):
        for varying in ("id", "created_at", "completed_at"):
            response.pop(varying)
        response["output"][0].pop("id")
    assert whole == last
    assert whole["usage"]["input_tokens_details"]["cached_tokens"] == 2


def events_of(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200
    return parsed(answer.body)


def parsed(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream, after a look at its frames."""
    frames = body.split(b"\n\n")[:-1]
    made = [json.loads(frame.partition(b"\ndata: ")[2]) for frame in frames]
    assert [frame.partition(b"\n")[0] for frame in frames] == [f"event: {it['type']}".encode() for it in made]
    return made


async def test_while_nothing_comes_the_response_is_in_progress(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_dialect.ResponseDialect, "quiet_seconds", 0.01)
    gate = asyncio.Event()
    strategy = ScriptedStrategy(STARTED, Delta(0, "a"), gate, Finished(0, "stop"), COMPLETED)
    async with exchange(serve(strategy), "POST", URL, msgspec.json.encode(STREAMED)) as client:
        seen = b""
        while seen.count(b"event: response.in_progress") < 4:
            seen += await client.chunk()
        gate.set()
        made = parsed(seen + b"".join(await client.chunks()))
    checked(made)
    beats = [it["response"]["output"] for it in made if it["type"] == "response.in_progress"]
    assert beats[0] == []
    assert beats[-1][0]["content"][0]["text"] == "a"
    assert beats[-1][0]["status"] == "in_progress"


async def test_a_failure_after_the_first_event_is_the_last_one(serve: Serve) -> None:
    broken = ScriptedStrategy(STARTED, Delta(0, "a"), EngineFailed("Broke; send it again."))
    made = events_of(await request(serve(broken), "POST", URL, STREAMED))
    checked(made)
    assert made[-1]["type"] == "response.failed"
    failed = made[-1]["response"]
    assert failed["error"] == {"code": "engine_failed", "message": "Broke; send it again.", "param": None}
    assert failed["status"] == "failed"
    assert failed["output"][0]["content"][0]["text"] == "a"


async def test_a_response_that_waits_begins_and_what_fails_then_is_an_event(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "PATIENCE", 0.01)
    gate = asyncio.Event()
    strategy = ScriptedStrategy(gate, InvalidRequest("Too long.", param="input", code="context_length_exceeded"))
    async with exchange(serve(strategy), "POST", URL, msgspec.json.encode(STREAMED)) as client:
        begun = await client.chunk()
        assert begun is not None
        first = parsed(begun)
        assert [it["type"] for it in first] == ["response.created", "response.in_progress"]
        assert first[0]["response"]["model"] == "tiny"
        gate.set()
        (last,) = parsed(b"".join(await client.chunks()))
    assert last["response"]["error"]["code"] == "context_length_exceeded"
    assert last["sequence_number"] == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (InvalidRequest("Too long.", param="input", code="context_length_exceeded"), 400, "context_length_exceeded"),
        (QueueFull("Full.", retry_after=2), 503, "queue_full"),
        (QueueFull("Slower.", code="rate_limit_exceeded", retry_after=2), 429, "rate_limit_exceeded"),
        (Unavailable("Later.", retry_after=2), 503, "unavailable"),
    ],
)
async def test_a_failure_before_the_first_event_has_its_status(
    serve: Serve, failure: InvalidRequest | QueueFull | Unavailable, status: int, code: str, stream: bool
) -> None:
    answer = await request(serve(ScriptedStrategy(failure)), "POST", URL, {**BODY, "stream": stream})
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.headers.get("retry-after") == (None if status == 400 else "2")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_is_kept_when_its_last_event_is_sent_and_goes_on(serve: Serve, stream: bool) -> None:
    strategy = ScriptedStrategy(STARTED, *told("One."), COMPLETED)
    app = serve(strategy)
    answer = await request(app, "POST", URL, {**STREAMED, "stream": stream, "metadata": {"a": "b"}})
    first = events_of(answer)[-1]["response"] if stream else answer.json()
    assert (await request(app, "GET", f"{URL}/{first['id']}")).json() == first
    assert first["metadata"] == {"a": "b"}
    second = (
        await request(app, "POST", URL, {"input": "y", "instructions": "Be kind.", "previous_response_id": first["id"]})
    ).json()
    assert second["previous_response_id"] == first["id"]
    await request(app, "POST", URL, {"input": "z", "previous_response_id": second["id"]})
    said = [[it.__class__.__name__ for it in job.messages] for job in strategy.jobs]
    turn = ["UserMessage", "AssistantMessage"]
    assert said == [
        ["UserMessage"],
        ["SystemMessage", *turn, "UserMessage"],
        [*turn, *turn, "UserMessage"],
    ], "instructions are not inherited"


async def test_items_may_be_referred_to(serve: Serve) -> None:
    strategy = ScriptedStrategy(*FULL)
    app = serve(strategy)
    tools = [{"type": "function", "name": "f"}]
    first = (await request(app, "POST", URL, {**BODY, "tools": tools})).json()
    own = (await request(app, "GET", f"{URL}/{first['id']}/input_items")).json()["data"]
    sent = [{"type": "item_reference", "id": it["id"]} for it in (*own, *first["output"])]
    sent[-1] = {"id": sent[-1]["id"]}
    second = (await request(app, "POST", URL, {"input": [*sent, {"role": "user", "content": "y"}]})).json()
    _user, turn, _last = strategy.jobs[1].messages
    assert turn.reasoning_content == "Which city?"
    assert [call.function.name for call in turn.tool_calls] == ["ns__weather", "patch"]
    listed = (await request(app, "GET", f"{URL}/{second['id']}/input_items?order=asc")).json()["data"]
    assert [it["type"] for it in listed] == [
        "message",
        "reasoning",
        "message",
        "function_call",
        "function_call",
        "message",
    ]


async def test_input_items_come_in_pages(serve: Serve) -> None:
    app = serve(ScriptedStrategy(STARTED, *told("x"), COMPLETED))
    items = [{"role": "user", "content": str(number)} for number in range(5)]
    made = (await request(app, "POST", URL, {"input": items})).json()
    place = f"{URL}/{made['id']}/input_items"
    page = (await request(app, "GET", f"{place}?limit=2")).json()
    assert [it["content"][0]["text"] for it in page["data"]] == ["4", "3"]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, page["data"][0]["id"], page["data"][1]["id"])
    rest = (await request(app, "GET", f"{place}?after={page['last_id']}")).json()
    assert [it["content"][0]["text"] for it in rest["data"]] == ["2", "1", "0"]
    assert not rest["has_more"]
    for wrong in ("after=nothing", "limit=0", "limit=101", "limit=x", "order=up"):
        answer = await request(app, "GET", f"{place}?{wrong}")
        assert (answer.status, answer.error["param"]) == (400, wrong.partition("=")[0])


async def test_what_is_not_kept_is_not_found(serve: Serve) -> None:
    strategy = ScriptedStrategy(STARTED, *told("x"), COMPLETED)
    app = serve(strategy)
    unkept = (await request(app, "POST", URL, {**BODY, "store": False})).json()
    assert unkept["store"] is False
    gone = (await request(app, "POST", URL, BODY)).json()
    assert (await request(app, "DELETE", f"{URL}/{gone['id']}")).json() == {
        "id": gone["id"],
        "object": "response",
        "deleted": True,
    }
    asked = len(strategy.jobs)
    for id_ in (unkept["id"], gone["id"], "resp_x", "x" * 1000):
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items")):
            answer = await request(app, method, f"{URL}/{id_}{path}")
            assert (answer.status, answer.error["code"]) == (404, "response_not_found")
        answer = await request(app, "POST", URL, {"input": "y", "previous_response_id": id_, "stream": True})
        assert (answer.status, answer.error["code"]) == (404, "previous_response_not_found")
        assert answer.error["param"] == "previous_response_id"
    reference = {"type": "item_reference", "id": unkept["output"][0]["id"]}
    answer = await request(app, "POST", URL, {"input": [reference]})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "item_not_found", "input.0.id")
    assert len(strategy.jobs) == asked


async def test_a_response_that_fails_or_is_left_is_not_kept(serve: Serve) -> None:
    broken = ScriptedStrategy(STARTED, Delta(0, "a"), EngineFailed("Broke."))
    app = serve(broken)
    made = events_of(await request(app, "POST", URL, STREAMED))
    assert (await request(app, "GET", f"{URL}/{made[0]['response']['id']}")).status == 404


async def test_responses_belong_to_the_key_that_made_them(serve: Serve) -> None:
    strategy = ScriptedStrategy(STARTED, *told("x"), COMPLETED)
    app = serve(strategy, Settings(api_keys=("mine", "yours")))
    mine, yours = ({"authorization": f"Bearer {key}"} for key in ("mine", "yours"))
    made = (await request(app, "POST", URL, BODY, mine)).json()
    assert (await request(app, "GET", f"{URL}/{made['id']}", headers=mine)).status == 200
    assert (await request(app, "GET", f"{URL}/{made['id']}", headers=yours)).status == 404
    assert (await request(app, "DELETE", f"{URL}/{made['id']}", headers=yours)).status == 404
    going_on = {"input": "y", "previous_response_id": made["id"]}
    assert (await request(app, "POST", URL, going_on, yours)).status == 404
    reference = {"input": [{"type": "item_reference", "id": made["output"][0]["id"]}]}
    assert (await request(app, "POST", URL, reference, yours)).status == 404
    assert (await request(app, "POST", URL, going_on, mine)).status == 200


async def test_where_nothing_is_kept_state_is_refused_by_name(serve: Serve) -> None:
    app = serve(ScriptedStrategy(STARTED, *told("x"), COMPLETED), Settings(response_store=0))
    assert (await request(app, "POST", URL, BODY)).json()["store"] is False
    for fields, param in (
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0"),
    ):
        answer = await request(app, "POST", URL, {**BODY, **fields})
        assert (answer.status, answer.error["param"]) == (400, param)
        assert "response_store" in answer.error["message"]


async def test_what_is_left_out_is_named_in_a_header(serve: Serve) -> None:
    app = serve(ScriptedStrategy(STARTED, *told("x"), COMPLETED))
    tools = [{"type": "function", "name": "f"}, {"type": "web_search"}, {"type": "é\r\nx"}]
    for stream in (False, True):
        answer = await request(app, "POST", URL, {**BODY, "tools": tools, "stream": stream})
        assert answer.headers["x-switchyard-ignored"] == "tools.1 (web_search), tools.2 (?  x)"
    assert "x-switchyard-ignored" not in (await request(app, "POST", URL, BODY)).headers


async def test_tokens_are_counted_as_they_would_be_asked_with(serve: Serve) -> None:
    app = serve()
    asked = {**BODY, "instructions": "Be brief.", "input": [{"role": "user", "content": "Hello"}]}
    counted = (await request(app, "POST", f"{URL}/input_tokens", asked)).json()
    made = (await request(app, "POST", URL, asked)).json()
    assert counted == {"object": "response.input_tokens", "input_tokens": made["usage"]["input_tokens"]}
    after = {"model": "tiny", "previous_response_id": made["id"], "input": "More"}
    counted = (await request(app, "POST", f"{URL}/input_tokens", after)).json()
    assert counted["input_tokens"] == (await request(app, "POST", URL, after)).json()["usage"]["input_tokens"]
    assert (await request(app, "POST", f"{URL}/input_tokens", {"model": "tiny"})).status == 400
