"""Streams on the wire: when bytes leave, how a failure looks, what happens when the client goes."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import msgspec
import pytest
from msgspec import Struct

from app.api.write import answer, sse
from app.api.write.sse import ASGIEventStream
from app.errors import EngineFailed, InvalidRequest, QueueFull, Unavailable
from app.generation.events import Delta, Finished
from app.schemas.errors import ErrorBody, ErrorDetail
from tests.api.conftest import Serve
from tests.support.asgi import ANYWHERE, events, exchange, forever, request
from tests.support.events import COMPLETED, STARTED, ScriptedStrategy, told

URL = "/v1/completions"
WHOLE = {"model": "tiny", "prompt": "x"}
STREAMED = {**WHOLE, "stream": True}
BODY = msgspec.json.encode(STREAMED)


async def test_a_stream_and_a_whole_answer_say_the_same(serve: Serve) -> None:
    app = serve(ScriptedStrategy(STARTED, *told(" Pa", "ris"), COMPLETED))
    whole = await request(app, "POST", URL, WHOLE)
    streamed = await request(app, "POST", URL, STREAMED)
    assert (whole.status, streamed.status) == (200, 200)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events(streamed.body)
    assert done == "[DONE]"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole.json()["choices"][0]["text"] == " Paris"
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert len({(chunk["id"], chunk["created"], chunk["system_fingerprint"]) for chunk in chunks}) == 1


async def test_what_is_told_together_leaves_in_one_write_and_nothing_is_held_back(serve: Serve) -> None:
    gate = asyncio.Event()
    strategy = ScriptedStrategy(
        STARTED, [Delta(0, "a"), Delta(0, "b")], gate, [Delta(0, "c"), Finished(0, "stop"), COMPLETED]
    )
    async with exchange(serve(strategy), "POST", URL, BODY) as client:
        first = await client.chunk()
        assert first is not None
        assert [chunk["choices"][0]["text"] for chunk in events(first)] == ["a", "b"]
        gate.set()
        rest = await client.chunk()
        assert rest is not None
        assert [chunk["choices"][0]["text"] for chunk in events(rest)] == ["c", ""]
        assert await client.chunk() == sse.DONE
        assert await client.chunk() is None


async def test_headers_leave_before_the_first_token(serve: Serve) -> None:
    async with exchange(serve(ScriptedStrategy(STARTED, asyncio.Event())), "POST", URL, BODY) as client:
        await client.started()
        assert client.status == 200
        assert client.headers["cache-control"] == "no-cache"
        assert "content-length" not in client.headers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (InvalidRequest("Too long.", param="prompt", code="context_length_exceeded"), 400, "invalid_request_error"),
        (QueueFull("Full.", retry_after=2.4), 429, "rate_limit_error"),
        (EngineFailed("Broke."), 500, "server_error"),
        (Unavailable("Later.", retry_after=0.1), 503, "server_error"),
        (ZeroDivisionError("a secret path"), 500, "server_error"),
    ],
)
async def test_a_failure_before_the_first_byte_has_its_status(
    serve: Serve, failure: Exception, status: int, kind: str, stream: bool
) -> None:
    answer = await request(serve(ScriptedStrategy(failure)), "POST", URL, {**WHOLE, "stream": stream})
    assert (answer.status, answer.error["type"]) == (status, kind)
    assert answer.headers.get("retry-after") == {429: "2", 503: "1"}.get(status)
    assert b"secret" not in answer.body


async def test_a_failure_after_the_first_byte_is_the_last_frame_and_there_is_no_done(serve: Serve) -> None:
    broken = ScriptedStrategy(STARTED, Delta(0, "a"), EngineFailed("Broke; send it again.", code="engine_failed"))
    answer = await request(serve(broken), "POST", URL, STREAMED)
    assert answer.status == 200
    first, last = events(answer.body)
    assert first["choices"][0]["text"] == "a"
    assert last == {
        "error": {"message": "Broke; send it again.", "type": "server_error", "param": None, "code": "engine_failed"}
    }
    assert b"[DONE]" not in answer.body
    assert broken.open == 0


async def test_a_failure_while_a_whole_answer_is_made_has_its_status(serve: Serve) -> None:
    answer = await request(serve(ScriptedStrategy(STARTED, Delta(0, "a"), Unavailable("Gone."))), "POST", URL, WHOLE)
    assert answer.status == 503


async def test_an_unforeseen_failure_in_a_stream_tells_nothing_of_the_inside(serve: Serve) -> None:
    answer = await request(serve(ScriptedStrategy(STARTED, KeyError("/home/me"))), "POST", URL, STREAMED)
    (last,) = events(answer.body)
    assert answer.headers["x-request-id"] in last["error"]["message"]
    assert b"/home" not in answer.body


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "PATIENCE", 0.01)


async def test_a_stream_begins_although_its_model_is_still_waited_for(serve: Serve, impatient: None) -> None:
    gate = asyncio.Event()
    async with exchange(serve(ScriptedStrategy(gate, STARTED, *told("a"), COMPLETED)), "POST", URL, BODY) as client:
        await client.started()
        assert client.status == 200
        gate.set()
        assert [chunk["choices"][0]["text"] for chunk in events(b"".join(await client.chunks()))[:-1]] == ["a", ""]


async def test_what_fails_after_a_stream_has_begun_to_wait_is_its_only_frame(serve: Serve, impatient: None) -> None:
    gate = asyncio.Event()
    strategy = ScriptedStrategy(gate, QueueFull("Full.", retry_after=2))
    async with exchange(serve(strategy), "POST", URL, BODY) as client:
        await client.started()
        gate.set()
        (frame,) = events(b"".join(await client.chunks()))
    assert frame["error"]["code"] == "queue_full"
    assert strategy.open == 0


async def test_a_whole_answer_that_is_waited_for_keeps_the_status_of_what_fails(serve: Serve, impatient: None) -> None:
    gate = asyncio.Event()
    async with exchange(
        serve(ScriptedStrategy(gate, QueueFull("Full."))), "POST", URL, msgspec.json.encode(WHOLE)
    ) as it:
        await asyncio.sleep(0.05)
        assert not it.status
        gate.set()
        assert (await it.answer()).status == 429


async def test_a_client_that_leaves_a_stream_that_has_begun_to_wait_cancels_the_work(
    serve: Serve, impatient: None
) -> None:
    strategy = ScriptedStrategy(asyncio.Event(), STARTED)
    async with exchange(serve(strategy), "POST", URL, BODY) as client:
        await client.started()
        assert strategy.open == 1
        client.disconnect()
        await asyncio.wait_for(client.over(), 1)
    assert (strategy.open, strategy.cancelled) == (0, 1)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("before_start", [True, False])
async def test_a_client_that_goes_away_cancels_the_work_at_once(serve: Serve, stream: bool, before_start: bool) -> None:
    begun, never = asyncio.Event(), asyncio.Event()
    steps = (never,) if before_start else (STARTED, Delta(0, "a"), never)
    strategy = ScriptedStrategy(*steps, on_open=begun.set)
    async with exchange(serve(strategy), "POST", URL, msgspec.json.encode({**WHOLE, "stream": stream})) as client:
        await begun.wait()
        if stream and not before_start:
            assert await client.chunk()
        assert strategy.open == 1
        client.disconnect()
        await asyncio.wait_for(client.over(), 1)
    assert (strategy.open, strategy.cancelled) == (0, 1)


async def test_a_client_that_goes_away_before_the_body_ends_is_no_failure(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    strategy = ScriptedStrategy(STARTED)
    async with exchange(serve(strategy), "POST", URL, [b'{"prom', b""]) as client:
        client._requests = []
        client.disconnect()
        await client.over()
    assert strategy.jobs == []
    assert "unforeseen" not in capsys.readouterr().out


async def test_a_reader_that_is_gone_while_it_is_written_to_ends_the_work(serve: Serve) -> None:
    strategy = ScriptedStrategy(STARTED, *[Delta(0, "x" * 100) for _ in range(5000)], asyncio.Event())
    app = serve(strategy)
    async with exchange(app, "POST", URL, BODY) as client:
        assert await client.chunk()
        client.disconnect()
        await asyncio.wait_for(client.over(), 1)
    assert strategy.open == 0


class Named(Struct, tag="named", tag_field="type"):
    number: int


async def test_tagged_events_are_named_and_silence_is_filled_with_those_of_the_source_in_order() -> None:
    release, written, numbers = asyncio.Event(), [], iter(range(100))

    async def items() -> AsyncGenerator[Any]:
        await release.wait()
        yield None

    async def write(message: Any) -> None:
        written.append(message.get("body", b""))
        if len(written) == 5:
            release.set()

    def tell(_: object = None) -> Any:
        return [Named(next(numbers))]

    filled = sse.Source(items(), tell, tell, opening=tell, silence=tell, ending=b"")
    await play(sse.ASGIEventStream(filled, keep_alive=0.01), write)
    frames = b"".join(written).split(b"\n\n")
    assert frames[0] == b'event: named\ndata: {"type":"named","number":0}'
    assert [msgspec.json.decode(frame.partition(b"data: ")[2])["number"] for frame in frames[:-1]] == list(range(5))


async def test_an_event_that_comes_while_a_silence_is_filled_has_its_turn_afterwards() -> None:
    begun, release, written, numbers = asyncio.Event(), asyncio.Event(), [], iter(range(100))

    async def items() -> AsyncGenerator[Any]:
        await begun.wait()
        asyncio.get_running_loop().call_later(0.05, release.set)
        for _ in range(3):
            yield None

    async def write(message: Any) -> None:
        if message.get("body"):
            number = msgspec.json.decode(message["body"].partition(b"data: ")[2])["number"]
            if number == 0:  # a reader that is slow with what fills the silence
                begun.set()
                await release.wait()
            written.append(number)

    def tell(_: object = None) -> Any:
        return [Named(next(numbers))]

    filled = sse.Source(items(), tell, tell, silence=tell, ending=b"")
    await play(sse.ASGIEventStream(filled, keep_alive=0.01), write)
    assert written == sorted(written)
    assert len(written) >= 4


def source(items: AsyncGenerator[Any]) -> sse.Source[Any]:
    return sse.Source(items, lambda item: [item], lambda error: ErrorBody(ErrorDetail(str(error), "server_error")))


async def play(stream: ASGIEventStream, write: Callable[..., Any]) -> None:
    """Run the ASGI response with a client that never goes."""
    await stream(ANYWHERE, forever, write)


async def test_silence_is_filled_with_comments_and_only_silence() -> None:
    release = asyncio.Event()
    written = []

    async def items() -> AsyncGenerator[Any]:
        yield ErrorBody(ErrorDetail("a", "b"))
        await release.wait()

    async def write(message: Any) -> None:
        written.append(message.get("body"))
        if written.count(sse.KEEP_ALIVE) == 3:
            release.set()

    await play(sse.ASGIEventStream(source(items()), keep_alive=0.01), write)
    assert written[2:5] == [sse.KEEP_ALIVE] * 3
    assert written[-1] == sse.DONE


async def test_a_slow_reader_holds_the_source_back() -> None:
    made, bodies = 0, []

    async def items() -> AsyncGenerator[Any]:
        nonlocal made
        for _ in range(4000):
            made += 1
            yield ErrorBody(ErrorDetail("x" * 100, "b"))

    async def write(message: Any) -> None:
        bodies.append(message.get("body", b""))
        if len(bodies) == 2:
            await asyncio.sleep(0.05)
            assert made == 1

    await play(sse.ASGIEventStream(source(items()), keep_alive=9), write)
    assert b"".join(bodies).count(b"data: ") == 4001
    assert made == 4000


async def test_a_chunk_that_cannot_be_encoded_is_a_failure_and_no_half_frame() -> None:
    written = []

    async def items() -> AsyncGenerator[Any]:
        yield ErrorBody(ErrorDetail("whole", "b"))
        yield ErrorBody(ErrorDetail("\ud800", "b"))

    async def write(message: Any) -> None:
        written.append(message.get("body", b""))

    failing: sse.Source[Any] = sse.Source(
        items(), lambda item: [item], lambda _: ErrorBody(ErrorDetail("told", "server_error"))
    )
    await play(sse.ASGIEventStream(failing, keep_alive=9), write)
    assert [event["error"]["message"] for event in events(b"".join(written))] == ["whole", "told"]


async def test_the_source_is_closed_when_the_headers_cannot_be_sent() -> None:
    strategy = ScriptedStrategy(STARTED, COMPLETED)
    items = strategy.run(cast("Any", None), cast("Any", None))
    await anext(items)

    async def write(_message: dict[str, Any]) -> None:
        raise OSError("broken pipe")

    with pytest.raises(OSError, match="broken pipe"):
        await play(sse.ASGIEventStream(source(items), keep_alive=9), write)
    assert strategy.open == 0
