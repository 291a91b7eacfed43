"""What other servers' fields ask for is done or refused by name, and what nobody knows is ignored and logged."""

import gzip
import json
import zlib
from collections.abc import Callable
from math import inf
from typing import Any, TypeVar

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from structlog.testing import capture_logs

from app.api.read import fields, peers, translate
from app.api.read.body import look_at, unknown
from app.api.read.coding import UnknownCoding, decoded
from app.api.read.peers import PeerField
from app.engine.grammar import Grammar
from app.errors import InvalidRequest
from app.schemas.chat import ChatRequest
from app.schemas.completions import CompletionRequest
from app.settings import ModelEntry, Settings
from tests.api.conftest import Serve
from tests.support.asgi import events, request

USER = {"role": "user", "content": "Hello"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
GBNF = 'root ::= "a"'
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


T = TypeVar("T", ChatRequest, CompletionRequest)


def sent(struct: type[T], **more: Any) -> T:
    """What becomes of a body with these fields beside the least there must be."""
    body = json.dumps({"messages": [USER], "prompt": "Hello", **more}).encode()
    data = msgspec.json.decode(body, type=struct)
    look_at(unknown(body, data), data)
    return data


def grammar(**more: Any) -> Grammar | None:
    told = translate.chat(sent(ChatRequest, **more), ModelEntry(), Settings()).decoding.grammar
    assert translate.completion(sent(CompletionRequest, **more), ModelEntry(), Settings()).decoding.grammar == told
    return told


@pytest.mark.parametrize(
    ("asked", "kind", "param"),
    [
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, "json_schema", "response_format.schema"),
        ({"response_format": {"type": "json_object"}}, "json_object", "response_format"),
        ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, "json_schema", "response_format.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            "json_schema",
            "response_format.json_schema.schema",
        ),
        ({"json_schema": SCHEMA}, "json_schema", "json_schema"),
        ({"json_schema": json.dumps(SCHEMA)}, "json_schema", "json_schema"),
        ({"grammar": GBNF}, "lark", "grammar"),
        ({"ebnf": GBNF}, "lark", "ebnf"),
        ({"regex": "a+"}, "regex", "regex"),
        ({"format": "json"}, "json_object", "format"),
        ({"format": SCHEMA}, "json_schema", "format"),
    ],
)
def test_a_constraint_by_any_servers_name_holds_the_answer(asked: dict[str, Any], kind: str, param: str) -> None:
    told = grammar(**asked)
    assert (told.kind, told.param) == (kind, param)
    if kind == "json_schema":
        assert json.loads(told.source) == SCHEMA


@pytest.mark.parametrize("asked", [{"grammar": ""}, {"ebnf": ""}, {"format": ""}, {"json_schema": None}])
def test_an_empty_constraint_is_none(asked: dict[str, Any]) -> None:
    assert grammar(**asked) is None


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"format": "yaml"}, "format"),
        ({"json_schema": "{"}, "json_schema"),
        ({"grammar": GBNF, "regex": "a"}, "grammar"),
        ({"response_format": {"type": "json_object"}, "format": "json"}, "format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"structured_outputs": {"regex": "a", "structural_tag": "x"}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"regex": "a", "whitespace_pattern": " "}}, "structured_outputs.whitespace_pattern"),
    ],
)
def test_what_is_no_constraint_or_one_too_many_is_refused_by_name(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        grammar(**asked)
    assert refused.value.param == param


def test_other_names_of_our_own_fields() -> None:
    asked = sent(ChatRequest, n_predict=7, repeat_penalty=1.5, thinking_token_budget=9, think="low")
    job = translate.chat(asked, ModelEntry(), Settings())
    assert (job.decoding.max_tokens, job.decoding.sampling.repetition_penalty, job.thinking_budget) == (7, 1.5, 9)
    assert job.variables == {"reasoning_effort": "low"}
    thinks = translate.chat(sent(ChatRequest, think=False), ModelEntry(), Settings())
    assert thinks.variables == {"enable_thinking": False}
    assert translate.completion(sent(CompletionRequest, n_predict=7), ModelEntry(), Settings()).decoding.max_tokens == 7
    assert translate.chat(sent(ChatRequest, thinking_token_budget=-1), ModelEntry(), Settings()).thinking_budget is None
    both = sent(CompletionRequest, n_predict=7, max_tokens=3, repeat_penalty=1.5, repetition_penalty=1.2)
    told = translate.completion(both, ModelEntry(), Settings()).decoding
    assert (told.max_tokens, told.sampling.repetition_penalty) == (3, 1.2)


@pytest.mark.parametrize("struct", [ChatRequest, CompletionRequest])
@given(field=st.sampled_from(peers.PEERS), value=VALUES)
def test_a_peers_field_is_harmless_accepted_or_refused_by_its_name(struct: Any, field: PeerField, value: Any) -> None:
    if field.name in {it.name for it in msgspec.structs.fields(struct)}:
        return
    if field.verdict == "accepted" or fields.harmless(field, value):
        sent(struct, **{field.name: value}, repetition_penalty=1.1)
        return
    with pytest.raises(InvalidRequest) as refused:
        sent(struct, **{field.name: value}, repetition_penalty=1.1)
    assert refused.value.param == field.name


def test_harmless_values_are_told_apart_by_their_kind() -> None:
    assert sent(ChatRequest, xtc_probability=0.0, use_beam_search=False, typical_p=1.0, top_n_sigma=-1)
    for name, value in (("xtc_probability", False), ("use_beam_search", 0), ("xtc_probability", 0.1)):
        with pytest.raises(InvalidRequest) as refused:
            sent(ChatRequest, **{name: value})
        assert refused.value.param == name


def test_a_window_of_penalties_is_refused_only_beside_a_penalty() -> None:
    assert sent(ChatRequest, repetition_context_size=20)
    assert sent(ChatRequest, repetition_context_size=20, repetition_penalty=1, presence_penalty=0)
    for penalty in ({"repetition_penalty": 1.1}, {"repeat_penalty": 1.1}, {"frequency_penalty": -1}):
        with pytest.raises(InvalidRequest):
            sent(ChatRequest, repetition_context_size=20, **penalty)


def test_no_field_stands_in_two_tables() -> None:
    own = {field.name for table in (fields.CHAT, fields.COMPLETION) for field in table}
    names = [field.name for field in peers.PEERS]
    assert len(names) == len(set(names))
    assert own & set(names) == {"echo"}, "a completion's own, and in chats another server's"


async def test_unknown_fields_are_ignored_and_logged_at_debug_by_name_alone(serve: Serve) -> None:
    app = serve()
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(10))
    try:
        with capture_logs() as lines:
            answer = await request(
                app,
                "POST",
                "/v1/chat/completions",
                {"model": "tiny", "messages": [USER], "oddity": "secret", "x" * 99: 1},
            )
    finally:
        structlog.configure(**before)
    assert answer.status == 200
    (line,) = [it for it in lines if it["event"] == "fields ignored"]
    assert (line["log_level"], line["fields"]) == ("debug", ["oddity", "x" * 64])
    assert "secret" not in str(lines)


async def test_a_peers_field_is_a_400_that_names_it(serve: Serve) -> None:
    answer = await request(
        serve(), "POST", "/v1/completions", {"model": "tiny", "prompt": "x", "use_beam_search": True}
    )
    assert (answer.status, answer.error["param"]) == (400, "use_beam_search")


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "identity": bytes,
    "": bytes,
    "GZIP, identity": gzip.compress,
    "deflate, gzip": lambda body: gzip.compress(zlib.compress(body)),
}


@given(body=st.binary(max_size=300), coding=st.sampled_from(sorted(CODINGS)), cut=st.integers(1, 20))
def test_a_compressed_body_is_what_it_was_or_refused(body: bytes, coding: str, cut: int) -> None:
    packed = CODINGS[coding](body)
    assert decoded(packed, coding, inf) == body
    assert decoded(packed, coding, len(packed) + len(body)) == body
    if CODINGS[coding] is not bytes and body:
        with pytest.raises(RequestEntityTooLarge):
            decoded(packed, coding, 0)
        with pytest.raises(InvalidRequest):
            decoded(packed[: -min(cut, len(packed) - 1)], coding, inf)


def test_members_of_gzip_and_deflate_without_a_head_are_read() -> None:
    assert decoded(gzip.compress(b"a") + gzip.compress(b"b"), "gzip", 2) == b"ab"
    raw = zlib.compressobj(wbits=-15)
    assert decoded(raw.compress(b"abc") + raw.flush(), "deflate", 3) == b"abc"


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "x" * 500])
def test_a_coding_that_is_not_known_is_named(coding: str) -> None:
    with pytest.raises(UnknownCoding, match=coding.rsplit(", ", maxsplit=1)[-1][:32]):
        decoded(b"", coding, inf)


async def test_a_compressed_request_is_answered_within_the_bodys_limit(serve: Serve) -> None:
    app = serve(settings=Settings(max_body_bytes=100_000))
    body = json.dumps({"model": "tiny", "prompt": "x" * 4000, "max_tokens": 1}).encode()
    answer = await request(app, "POST", "/v1/completions", gzip.compress(body), {"Content-Encoding": "gzip"})
    assert answer.status == 200
    bomb = gzip.compress(b" " * 50_000_000)
    answer = await request(app, "POST", "/v1/completions", bomb, {"Content-Encoding": "gzip"})
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")
    answer = await request(app, "POST", "/v1/completions", body, {"Content-Encoding": "zstd"})
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "gzip, deflate")
    assert "zstd" in answer.error["message"]
    answer = await request(app, "POST", "/v1/completions", body, {"Content-Encoding": "gzip"})
    assert answer.status == 400


def test_a_grammar_is_compiled_for_the_field_that_it_came_from() -> None:
    assert grammar(ebnf=GBNF) == Grammar("lark", GBNF, param="ebnf")


@pytest.mark.parametrize(
    ("path", "fields"), [("/v1/completions", {"prompt": "x"}), ("/v1/chat/completions", {"messages": [USER]})]
)
@pytest.mark.parametrize("include", [True, False])
async def test_usage_in_every_chunk_grows_to_what_the_last_one_says(
    serve: Serve, path: str, fields: dict[str, Any], include: bool
) -> None:
    options = {"include_usage": include, "continuous_usage_stats": True}
    answer = await request(
        serve(), "POST", path, {"model": "tiny", "stream": True, "stream_options": options, "max_tokens": 9, **fields}
    )
    told = [event for event in events(answer.body) if event != "[DONE]"]
    if not include:
        assert not any("usage" in event for event in told)
        return
    counts = [event["usage"]["completion_tokens"] for event in told]
    assert counts == sorted(counts)
    assert counts[-1] == 9 > counts[0] >= 1
    assert {event["usage"]["prompt_tokens"] for event in told} == {told[-1]["usage"]["prompt_tokens"]}
    assert all(
        it["usage"]["total_tokens"] == it["usage"]["prompt_tokens"] + made
        for it, made in zip(told, counts, strict=True)
    )
