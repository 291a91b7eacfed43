"""The main job on real input: a real model, real answers, real clients, the service as people start it."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from httpx2 import Client
from openai import OpenAI
from openai.types.completion import Completion

from tests.contract.conftest import Server
from tests.support.hub import Faults, LocalHub
from tests.support.process import Service, service
from tests.support.tiny import tiny

FRANCE = "The capital of France is"
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def client(real: Server) -> Iterator[OpenAI]:
    with openai.OpenAI(base_url=real.base_url, api_key="none", max_retries=0, timeout=120) as made:
        yield made


def test_the_embedded_model_knows_the_capital_of_france(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="smollm2", prompt=FRANCE, max_tokens=3, temperature=0)
    assert answer.choices[0].text.startswith(" Paris"), "the first space is part of the completion"
    assert answer.model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 3)


def test_the_embedded_model_chats(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="smollm2", messages=QUESTION, max_tokens=20, temperature=0)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


def test_a_stop_string_cuts_and_echo_keeps(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="smollm2", prompt=FRANCE, max_tokens=12, temperature=0, stop="ris", echo=True
    )
    assert answer.choices[0].text == f"{FRANCE} Pa"
    assert answer.choices[0].finish_reason == "stop"


def test_tokens_leave_as_they_are_made(client: openai.OpenAI) -> None:
    with client.completions.create(model="smollm2", prompt=FRANCE, max_tokens=8, temperature=0, stream=True) as stream:
        times = [time.monotonic() for chunk in stream if chunk.choices[0].text]
    assert len(times) >= 6
    # A server that collects first would send everything within a moment; a token takes tens of milliseconds.
    assert times[-1] - times[0] > 0.05


async def test_sixteen_at_once_say_what_they_say_alone(real: Server) -> None:
    async with openai.AsyncOpenAI(base_url=real.base_url, api_key="none", timeout=120) as client:

        async def say(number: int) -> str:
            answer = await client.completions.create(
                model="tiny-a", prompt=f"Number {number}:", max_tokens=24, temperature=0
            )
            return answer.choices[0].text

        alone = [await say(number) for number in range(16)]
        assert await asyncio.gather(*(say(number) for number in range(16))) == alone


async def test_two_models_answer_side_by_side(real: Server) -> None:
    async with openai.AsyncOpenAI(base_url=real.base_url, api_key="none", timeout=120) as client:
        answers = await asyncio.gather(
            *(
                client.completions.create(model=f"tiny-{'ab'[i % 2]}", prompt="Hi", max_tokens=8, seed=i)
                for i in range(8)
            )
        )
    assert [answer.model for answer in answers] == ["tiny-a", "tiny-b"] * 4


def leave_early(http: Client, body: dict[str, Any]) -> None:
    """Ask and go away: after the first piece of a stream, or while the whole answer is being made."""
    with contextlib.suppress(httpx2.ReadTimeout), http.stream("POST", "/v1/completions", json=body, timeout=0.3) as it:
        next(it.iter_bytes())


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_place(real: Server, stream: bool) -> None:
    body = {"model": "tiny-a", "prompt": "Hi", "max_tokens": 2000, "n": 16, "stream": stream, "ignore_eos": True}
    with httpx2.Client(base_url=real.url, timeout=60) as http:
        for _ in range(8):  # 128 rows, twice what there is room for: they fit only if places become free
            leave_early(http, body)
        started = time.monotonic()
        answer = http.post("/v1/completions", json={"model": "tiny-a", "prompt": "Hi", "max_tokens": 2})
    assert answer.status_code == 200
    assert time.monotonic() - started < 10


@pytest.fixture(scope="module")
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        hub.add("org/cold", tiny(5))
        hub.add("org/gated", tiny(6))
        hub.add("org/late", tiny(7))
        yield hub


@pytest.fixture(scope="module")
def fetching(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = str(tmp_path_factory.mktemp("hf"))
    with service(HF_ENDPOINT=hub.url, HF_HOME=home) as running:
        yield running


def ask(running: Service, model: str, **fields: Any) -> Completion:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        return client.completions.create(model=model, prompt="Hi", max_tokens=3, **fields)


async def test_the_first_request_fetches_and_twenty_at_once_fetch_each_file_once(
    hub: LocalHub, fetching: Service
) -> None:
    async with openai.AsyncOpenAI(base_url=f"{fetching.url}/v1", api_key="none", max_retries=0) as client:
        answers = await asyncio.gather(
            *(
                client.completions.create(model="org/cold", prompt="Hi", max_tokens=3, extra_body={"ignore_eos": True})
                for _ in range(20)
            )
        )
    assert [answer.usage.completion_tokens for answer in answers] == [3] * 20
    assert [hub.count(name) for name in ("model.safetensors", "config.json", "tokenizer.json")] == [1, 1, 1]


def test_what_the_hub_refuses_is_told_and_the_next_request_works(hub: LocalHub, fetching: Service) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(fetching, "org/nowhere")
    assert unknown.value.code == "model_not_found"
    hub.faults["*"] = Faults(status=403, error_code="GatedRepo")
    with pytest.raises(openai.PermissionDeniedError, match="licen"):
        ask(fetching, "org/gated")
    hub.faults.clear()
    assert ask(fetching, "org/gated").choices
    assert ask(fetching, "org/cold").choices


def test_a_hub_that_is_down_is_a_503_and_only_for_what_it_has(hub: LocalHub, fetching: Service) -> None:
    assert ask(fetching, "org/cold").choices
    hub.faults["*"] = Faults(status=503)
    with pytest.raises(openai.InternalServerError) as down:
        ask(fetching, "org/late")
    assert down.value.status_code == 503
    assert down.value.response.headers["retry-after"]
    assert ask(fetching, "org/cold").choices
    hub.faults.clear()
    assert ask(fetching, "org/late").choices


def test_ctrl_c_ends_it_cleanly_while_it_works(tmp_path: Path) -> None:
    with service("--offline", "--model-root", str(tiny(1).parent), HF_HOME=str(tmp_path)) as running:
        with httpx2.Client(base_url=running.url, timeout=30) as http:
            assert http.get("/health").status_code == 200
            body = {"model": tiny(1).name, "prompt": "Hi", "max_tokens": 500, "stream": True}
            with http.stream("POST", "/v1/completions", json=body) as stream:
                pieces = stream.iter_bytes()
                next(pieces)
                running.process.send_signal(signal.SIGINT)
                rest = b"".join(pieces)
        assert running.process.wait(20) == 0
        assert "Traceback" not in running.log
    assert rest.rstrip().endswith(b"data: [DONE]"), "a running answer is finished"


@pytest.mark.parametrize(("model", "tokens"), [("tiny-a", 24), ("smollm2", 10)])
async def test_a_seed_says_the_same_beside_others_in_any_order_streamed_or_whole(
    real: Server, model: str, tokens: int
) -> None:
    prompts = ["This is the story of", "Once upon a time in the west there", "Paris", "A long winter night"]
    async with openai.AsyncOpenAI(base_url=real.base_url, api_key="none", timeout=120) as client:

        async def say(number: int, *, stream: bool = False) -> list[str]:
            fields: dict[str, Any] = {"prompt": prompts[number], "temperature": 0.7, "top_p": 0.9, "seed": number}
            answer = await client.completions.create(model=model, max_tokens=tokens, n=2, stream=stream, **fields)
            if not stream:
                return [choice.text for choice in answer.choices]
            texts = ["", ""]
            async for chunk in answer:
                for choice in chunk.choices:
                    texts[choice.index] += choice.text
            return texts

        async def noise(number: int) -> None:
            await client.completions.create(
                model=model, prompt="noise " * number, max_tokens=2 * number, temperature=1, seed=7
            )

        alone = [await say(number) for number in range(4)]
        assert all(first != second for first, second in alone), "choices of one prompt differ"
        for order, stream in (((2, 0, 3, 1), False), ((3, 1, 0, 2), True)):
            told, _ = await asyncio.gather(
                asyncio.gather(*(say(number, stream=stream) for number in order)),
                asyncio.gather(*(noise(number) for number in range(1, 5))),
            )
            assert told == [alone[number] for number in order]
