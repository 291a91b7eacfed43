from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.read import translate
from app.errors import InvalidRequest
from app.generation.job import ChatJob, CompletionJob
from app.schemas.chat import ChatRequest
from app.schemas.completions import CompletionRequest
from app.settings import ModelEntry, Settings

SETTINGS = Settings(max_choices=4)
USER = {"role": "user", "content": "Hello"}
TEXT = {"type": "text", "text": "a"}
IMAGE = {"type": "image_url", "image_url": {"url": "http://x"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
FILE = {"type": "file", "file": {"file_id": "x"}}


CALLING = {
    "role": "assistant",
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "content": "a", "tool_call_id": "1"}
FOREIGN = (
    "image_url", "input_image", "image", "input_audio", "audio_url", "video_url", "file", "input_file",
)  # fmt: skip

UNSET = ModelEntry()


def completion(entry: ModelEntry = UNSET, **fields: Any) -> CompletionJob:
    return translate.completion(msgspec.convert(fields, CompletionRequest), entry, SETTINGS)


def chat(entry: ModelEntry = UNSET, **fields: Any) -> ChatJob:
    return translate.chat(msgspec.convert({"messages": [USER], **fields}, ChatRequest), entry, SETTINGS)


def test_what_is_left_out_gets_the_documented_defaults() -> None:
    job = completion()
    assert job.prompts == ("",)
    assert job.decoding.max_tokens == 16
    assert (job.decoding.sampling.temperature, job.decoding.sampling.top_p, job.decoding.sampling.seed) == (1, 1, None)
    assert (job.decoding.n, job.decoding.best_of, job.decoding.logprobs, job.echo, job.suffix) == (
        1,
        1,
        None,
        False,
        None,
    )
    assert chat().decoding.max_tokens is None


def test_the_models_entry_stands_in_for_what_a_request_leaves_out_and_zero_is_a_value() -> None:
    entry = ModelEntry(temperature=0.3, top_p=0.9, top_k=7, min_p=0.1, repetition_penalty=1.2, max_tokens=5)
    left_out = completion(entry).decoding
    assert (left_out.sampling.temperature, left_out.sampling.top_k, left_out.max_tokens) == (0.3, 7, 5)
    given = completion(entry, temperature=0, top_p=0, top_k=0, min_p=0, repetition_penalty=1, max_tokens=0).decoding
    assert (given.sampling.temperature, given.sampling.top_p, given.sampling.top_k, given.sampling.min_p) == (
        0,
        0,
        0,
        0,
    )
    assert (given.sampling.repetition_penalty, given.max_tokens) == (1, 0)


@pytest.mark.parametrize("temperature", [0, -0.0, 5e-324, 1e-45, 9e-7])
def test_a_temperature_that_nothing_can_tell_from_0_is_greedy(temperature: float) -> None:
    assert completion(temperature=temperature).decoding.sampling.temperature == 0
    assert completion(temperature=1e-6).decoding.sampling.temperature == 1e-6


def test_max_completion_tokens_comes_before_max_tokens() -> None:
    assert chat(max_completion_tokens=3, max_tokens=9).decoding.max_tokens == 3
    assert chat(max_tokens=9).decoding.max_tokens == 9
    assert chat(ModelEntry(max_tokens=4)).decoding.max_tokens == 4


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ("a",)),
        (["a", ""], ("a", "")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
        ([[]], ((),)),
        (["a", [1]], ("a", (1,))),
    ],
)
def test_every_spelling_of_a_prompt(
    prompt: str | list[str | int | list[int]], prompts: tuple[str | tuple[int, ...], ...]
) -> None:
    assert completion(prompt=prompt).prompts == prompts


def test_top_k_minus_one_is_off_and_stop_may_be_a_string() -> None:
    job = completion(top_k=-1, stop="\n", logit_bias={"5": -100, "7": 1})
    assert job.decoding.sampling.top_k == 0
    assert job.decoding.stop == ("\n",)
    assert job.decoding.sampling.logit_bias == ((5, -100), (7, 1))


def test_results_belong_to_calls_before_them_however_far() -> None:
    assert len(chat(messages=[CALLING, USER, RESULT, RESULT]).messages) == 4


@given(
    kind=st.sampled_from(FOREIGN),
    value=st.none() | st.text(max_size=3) | st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=2),
    role=st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
    before=st.integers(0, 2),
)
def test_whatever_is_no_text_is_refused_as_what_a_text_model_cannot_read(
    kind: str, value: str | dict[str, str] | None, role: str, before: int
) -> None:
    message = {"role": role, "content": [TEXT] * before + [{"type": kind, kind: value}]}
    messages = [CALLING, message | ({"tool_call_id": "1"} if role == "tool" else {})]
    with pytest.raises(InvalidRequest, match="this is a text model") as refused:
        chat(messages=messages)
    assert refused.value.param == f"messages.1.content.{before}"


def test_texts_of_conversations_from_the_responses_api_are_texts() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}, TEXT]
    assert [part.text for part in chat(messages=[{"role": "user", "content": parts}]).messages[0].content] == list(
        "aba"
    )


@given(st.lists(st.text("ab\n", max_size=3), max_size=64))
def test_empty_stops_are_ignored_and_the_others_kept_in_order(stops: list[str]) -> None:
    kept = completion(stop=stops).decoding.stop
    assert "" not in kept
    assert list(kept) == sorted({stop for stop in stops if stop}, key=stops.index)
    assert completion(stop="").decoding.stop == chat(stop=["", ""]).decoding.stop == ()


@pytest.mark.parametrize("ask", [completion, chat])
def test_minus_one_asks_for_all_that_the_context_holds_whatever_the_models_entry_says(ask: Callable[..., Any]) -> None:
    entry = ModelEntry(max_tokens=5)
    assert ask(entry, max_tokens=-1).decoding.max_tokens is None
    assert ask(entry, max_tokens=64_000, min_tokens=17).decoding.max_tokens == 64_000
    assert ask(entry, max_tokens=-1, min_tokens=17).decoding.min_tokens == 17
    assert chat(entry, max_completion_tokens=-1, max_tokens=7).decoding.max_tokens is None


def test_chat_logprobs_are_counted_as_alternatives() -> None:
    assert chat(logprobs=True).decoding.logprobs == 0
    assert chat(logprobs=True, top_logprobs=20).decoding.logprobs == 20
    assert chat(logprobs=False).decoding.logprobs is None


def test_variables_reach_the_template() -> None:
    job = chat(chat_template_kwargs={"enable_thinking": False}, reasoning_effort="low")
    assert job.variables == {"reasoning_effort": "low", "enable_thinking": False}


def test_a_prefilled_answer_is_continued() -> None:
    messages = [USER, {"role": "assistant", "content": "Once"}]
    assert chat(messages=messages, continue_final_message=True, add_generation_prompt=False).continue_final


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [[1], 2]}, "prompt"),
        ({"prompt": ["a"] * 2049}, "prompt"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"n": 1, "best_of": 2, "stream": True}, "best_of"),
        ({"suffix": "b", "echo": True, "logprobs": 0}, "echo"),
        ({"n": 5}, "n"),
        ({"best_of": 5}, "best_of"),
        ({"stop": "x" * 5000}, "stop"),
        ({"stream_options": {}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
        ({"logit_bias": {"²": 1}}, "logit_bias"),
        ({"min_tokens": 17}, "min_tokens"),
    ],
)
def test_completions_refuse_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        completion(**fields)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 0}, "top_logprobs"),
        ({"top_logprobs": 1, "logprobs": False}, "top_logprobs"),
        ({"n": 5}, "n"),
        ({"max_completion_tokens": 2, "min_tokens": 3}, "min_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0, "max_tokens": 9}, "max_completion_tokens"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "add_generation_prompt"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "chat_template_kwargs.chat_template"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs.tokenize"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content.0"),
        ({"messages": [USER, {"role": "user", "content": [TEXT, AUDIO]}]}, "messages.1.content.1"),
        ({"messages": [{"role": "user", "content": [FILE]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "assistant", "content": "a", "audio": {"id": "x"}}]}, "messages.0.audio"),
        ({"messages": [USER, {"role": "tool", "content": "a", "tool_call_id": "x"}]}, "messages.1.tool_call_id"),
        ({"messages": [RESULT, CALLING]}, "messages.0.tool_call_id"),
        ({"messages": [CALLING, RESULT, {**RESULT, "tool_call_id": "2"}]}, "messages.2.tool_call_id"),
        ({"store": True}, "store"),
        ({"store": 0}, "store"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x", "format": "mp3"}}, "audio"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"verbosity": "low"}, "verbosity"),
    ],
)  # fmt: skip
def test_chat_refuses_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(**fields)
    assert refused.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"store": False},
        {"service_tier": "auto"},
        {"modalities": ["text"]},
        {"verbosity": "medium"},
        {"metadata": {"a": "b"}},
        {"user": "me", "safety_identifier": "me", "prompt_cache_key": "x"},
        {"prompt_cache_options": {"mode": "implicit"}},
        {"store": None, "tools": None, "audio": None, "temperature": None, "n": None, "stream": None},
    ],
)
def test_what_is_harmless_is_accepted(fields: dict[str, Any]) -> None:
    assert chat(**fields) == chat()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0),
        (-1, -1),
        (2.5, 2.5),
        ("30", 30),
        ("-1", -1),
        ("5m", 300),
        ("1h30m", 5400),
        ("-1m", -60),
        ("1.5s", 1.5),
        ("250ms", 0.25),
    ],
)
def test_how_long_a_model_stays(written: str | float, seconds: float) -> None:
    assert translate.keep_alive(CompletionRequest(keep_alive=written)) == pytest.approx(seconds)


@pytest.mark.parametrize("written", ["", "m", "5 m", "5x", "1h30", "nan", "inf", "1e9", "٣m", "9" * 400])
def test_a_duration_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        translate.keep_alive(CompletionRequest(keep_alive=written))
    assert refused.value.param == "keep_alive"
    assert translate.keep_alive(CompletionRequest()) is None
