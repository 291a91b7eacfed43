"""What a model's generation_config.json says of sampling, read, told and overruled."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.api.read import translate
from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.engine.sampling_defaults import sampling_defaults
from app.generation.job import ChatJob, CompletionJob
from app.schemas.chat import ChatRequest
from app.schemas.completions import CompletionRequest
from app.schemas.sampling import Sampling, SamplingDefaults
from app.settings import ModelEntry, Settings
from tests.generation.test_strategy import run
from tests.support.scripted import ByteTokenizer, ScriptedEngine, says
from tests.support.tiny import make_tiny


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"temperature": 0.6, "top_k": 20, "do_sample": True}, {"temperature": 0.6, "top_k": 20}),
        ({"min_p": 0.05, "repetition_penalty": 1.05}, {"min_p": 0.05, "repetition_penalty": 1.05}),
        ({"do_sample": False, "temperature": 0.6}, {"temperature": 0.0}),
        ({"do_sample": None, "temperature": None, "top_k": None}, {}),
        ({"temperature": "hot", "top_p": 7, "top_k": -1, "min_p": True, "repetition_penalty": 0}, {}),
        ({"top_k": 1.5, "eos_token_id": [1, 2]}, {}),
        ({}, {}),
    ],
)
def test_what_can_be_done_is_taken(tmp_path: Path, said: dict[str, Any], meant: dict[str, Any]) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(said))
    assert sampling_defaults(tmp_path) == SamplingDefaults(**meant)


@pytest.mark.parametrize("text", [None, "", "[]", "{", "NaN"])
def test_a_file_that_is_none_says_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "generation_config.json").write_text(text)
    assert sampling_defaults(tmp_path) == SamplingDefaults()


def asked(kind: type[ChatRequest | CompletionRequest], entry: ModelEntry, **fields: Any) -> ChatJob | CompletionJob:
    if kind is ChatRequest:
        body = {"model": "m", "messages": [{"role": "user", "content": "?"}], **fields}
        return translate.chat(msgspec.convert(body, ChatRequest), entry, Settings())
    body = {"model": "m", "prompt": "?", **fields}
    return translate.completion(msgspec.convert(body, CompletionRequest), entry, Settings())


async def drawn(job: ChatJob | CompletionJob, **theirs: Any) -> Sampling:
    engine = ScriptedEngine(says("x"), tokenizer=ByteTokenizer(sampling=SamplingDefaults(**theirs)))
    await run(job, engine)
    return engine.submitted[0].sampling


async def test_in_a_chat_the_request_comes_first_then_the_settings_then_the_model() -> None:
    theirs = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1}
    job = asked(ChatRequest, ModelEntry(top_p=0.5, min_p=0.0), temperature=1.0, repeat_penalty=1.0)
    sampling = await drawn(job, **theirs)
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 0.5, 20)
    assert (sampling.min_p, sampling.repetition_penalty) == (0.0, 1.0)


async def test_a_model_that_says_nothing_is_sampled_as_openais_are() -> None:
    sampling = await drawn(asked(ChatRequest, ModelEntry()))
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 1.0, 0)


async def test_completions_are_raw() -> None:
    sampling = await drawn(asked(CompletionRequest, ModelEntry()), temperature=0.1)
    assert sampling.temperature == 1.0


def test_a_tokenizer_tells_what_stands_beside_it(tmp_path: Path) -> None:
    make_tiny(tmp_path / "m", seed=1)
    (tmp_path / "m" / "generation_config.json").write_text('{"temperature": 0.7}')
    assert MLXTokenizer.load(tmp_path / "m", None).facts(100).sampling == SamplingDefaults(temperature=0.7)
