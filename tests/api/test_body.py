from time import perf_counter
from typing import Any

import msgspec
import pytest

from app.api.read.body import MAX_DEPTH, MAX_VALUES, decode, depth
from app.errors import InvalidRequest
from app.schemas.chat import ChatRequest
from app.schemas.completions import CompletionRequest

MESSAGES = b'"messages":[{"role":"user","content":"x"}]'


def refused(body: bytes, type_: type[msgspec.Struct] = ChatRequest) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decode(body, type_)
    return caught.value


@pytest.mark.parametrize(
    ("field", "param"),
    [
        (b'"temperature":"0.5"', "temperature"),
        (b'"temperature":2.1', "temperature"),
        (b'"temperature":true', "temperature"),
        (b'"temperature":1e999', "temperature"),
        (b'"max_tokens":1.0', "max_tokens"),
        (b'"max_tokens":-2', "max_tokens"),
        (b'"n":0', "n"),
        (b'"seed":99999999999999999999', "seed"),
        (b'"seed":-99999999999999999999', "seed"),
        (b'"logit_bias":{"1":101}', "logit_bias"),
        (b'"logit_bias":[1]', "logit_bias"),
        (b'"stop":[' + b'"a",' * 64 + b'"b"]', "stop"),
        (b'"stop":5', "stop"),
        (b'"stop_token_ids":[-1]', "stop_token_ids.0"),
        (b'"top_logprobs":21', "top_logprobs"),
        (b'"stream":"yes"', "stream"),
        (b'"stream_options":{"include_usage":1}', "stream_options.include_usage"),
        (b'"reasoning_effort":"huge"', "reasoning_effort"),
        (b'"metadata":{"a":1}', "metadata"),
        (b'"model":"' + b"x" * 513 + b'"', "model"),
        (b'"keep_alive":true', "keep_alive"),
    ],
)
def test_a_wrong_field_is_named(field: bytes, param: str) -> None:
    assert refused(b"{" + MESSAGES + b"," + field + b"}").param == param


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (b"[]", "messages"),
        (b'"hi"', "messages"),
        (b'[{"role":"user"}]', "messages.0.content"),
        (b'[{"content":"x"}]', "messages.0.role"),
        (b'[{"role":"robot","content":"x"}]', "messages.0.role"),
        (b'[{"role":"user","content":[{"type":"text","text":3}]}]', "messages.0.content.0.text"),
        (b'[{"role":"user","content":[{"type":"smell"}]}]', "messages.0.content.0.type"),
        (b'[{"role":"tool","content":"x"}]', "messages.0.tool_call_id"),
    ],
)
def test_a_wrong_message_is_named(messages: bytes, param: str) -> None:
    assert refused(b'{"messages":' + messages + b"}").param == param


def test_a_missing_field_is_named() -> None:
    assert refused(b"{}").param == "messages"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"[]", "object"),
        (b"null", "object"),
        (b"{", "JSON"),
        (b"{} x", "JSON"),
        (b'{"temperature":NaN}', "JSON"),
        (b'{"temperature":-Infinity}', "JSON"),
        (b'{"user":"\xff"}', "UTF-8"),
        (b'{"user":"\\ud800"}', "surrogate"),
        (b'{"user":"\\udc00 "}', "surrogate"),
        (b'{"user":"\\ud800\\n"}', "surrogate"),
        (b"[" * 100_000, "nested"),
        (b'{"zz":' + b"[" * 65 + b"]" * 65 + b"}", "nested"),
        (b'{"zz":' + b'{"a":' * 200_000 + b"1" + b"}" * 200_001, "nested"),
    ],
)
def test_what_is_no_object_of_json_is_said_to_be(body: bytes, words: str) -> None:
    error = refused(body, CompletionRequest)
    assert words in error.message
    assert error.param is None


def test_numbers_strings_and_unknown_fields_that_are_fine() -> None:
    asked = decode(b'{"temperature":1,"user":"\\ud83d\\ude00 [[[","unknown":[{}]}', CompletionRequest)
    assert (asked.temperature, asked.user) == (1.0, "😀 [[[")


def test_depth_ignores_what_stands_in_strings() -> None:
    deep = b'{"a":["' + b"[" * 500 + b'\\"' + b"{" * 500 + b'"]}'
    assert depth(deep) == 2
    assert depth(b"[" * 40 + b"]" * 40 + b"{}" * 200) == 40
    assert depth(b"[" * 10) <= MAX_DEPTH


def test_a_string_without_end_is_looked_at_once() -> None:
    """Every quote of it could be taken for another beginning, which would make the time quadratic."""
    body = b"{" * 65 + b'"' + b'\\"' * 200_000
    began = perf_counter()
    with pytest.raises(InvalidRequest):
        decode(body, Any)
    assert perf_counter() - began < 1


def test_lists_may_have_only_so_many_elements() -> None:
    decode(b"[" + b"0," * (MAX_VALUES - 1) + b"0]", Any)
    decode(b'["' + b"," * (MAX_VALUES + 9) + b'"]', Any)
    with pytest.raises(InvalidRequest, match="elements"):
        decode(b"[" + b"0," * (MAX_VALUES + 1) + b"0]", Any)
