"""Embedding models and rerankers in a real service: OpenAI's SDK, processes, eviction, the memory that comes back."""

import asyncio
import base64
import os
import struct
import time
from collections.abc import Iterator

import httpx2
import msgspec
import numpy as np
import openai
import pytest
from openai import OpenAI

from app.schemas.admin import AdminModel, AdminModels
from tests.support.encoders import WIDTH, add_modules, make_bert, make_decoder
from tests.support.process import Service, service
from tests.support.tiny import make_tiny

POOLING = ("Pooling", {"pooling_mode_mean_tokens": True})
TEXTS = ["the quick brown fox", "dog", "what is the capital of france", ""]
TOML = '[models."raw"]\npooling = "lasttoken"\n'


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("models")
    make_tiny(root / "chat", seed=0)
    add_modules(make_bert(root / "vec"), POOLING, ("Normalize", {}))
    make_bert(root / "judge", family="roberta", classifier=True)
    make_decoder(root / "raw")
    make_bert(root / "mute")
    config = tmp_path_factory.mktemp("config")
    (config / "settings.toml").write_text("")
    (config / "models.toml").write_text(TOML)
    flags = (
        "--offline",
        "--model-root",
        str(root),
        "--default-model",
        "chat",
        "--config",
        str(config / "settings.toml"),
    )
    with service(*flags) as running:
        yield running


@pytest.fixture
def client(running: Service) -> Iterator[OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def resident(url: str) -> dict[str, AdminModel]:
    told = msgspec.json.decode(httpx2.get(f"{url}/admin/models").content, type=AdminModels)
    return {model.id: model for model in told.data if model.state == "resident"}


def test_openai_sdk_reads_vectors_in_both_encodings(client: openai.OpenAI) -> None:
    told = client.embeddings.create(model="vec", input=TEXTS)  # the SDK asks for base64 by itself
    plain = client.embeddings.create(model="vec", input=TEXTS, encoding_format="float")
    assert [it.index for it in told.data] == [0, 1, 2, 3]
    np.testing.assert_array_equal([it.embedding for it in told.data], [it.embedding for it in plain.data])
    np.testing.assert_allclose(np.linalg.norm([it.embedding for it in told.data], axis=1), 1, atol=1e-6)
    assert told.usage.prompt_tokens == told.usage.total_tokens == 4 + 2 + 1 + 2 + 6 + 2 + 2
    short = client.embeddings.create(model="vec", input="dog", dimensions=8)
    assert len(short.data[0].embedding) == 8


def test_the_most_inputs_that_a_request_may_hold_are_answered_in_order(client: openai.OpenAI) -> None:
    texts = [TEXTS[at * at % 3] for at in range(2048)]
    told = client.embeddings.create(model="vec", input=texts)
    singles = {text: client.embeddings.create(model="vec", input=text).data[0].embedding for text in TEXTS[:3]}
    np.testing.assert_allclose([it.embedding for it in told.data], [singles[text] for text in texts], atol=2e-6)


def test_ids_that_tokenize_gives_are_the_same_text(client: openai.OpenAI, running: Service) -> None:
    ids = httpx2.post(f"{running.url}/tokenize", json={"model": "vec", "prompt": TEXTS[0]}).json()["tokens"]
    by_ids = client.embeddings.create(model="vec", input=ids)
    by_text = client.embeddings.create(model="vec", input=TEXTS[0])
    np.testing.assert_allclose(by_ids.data[0].embedding, by_text.data[0].embedding, atol=1e-6)


def test_a_chat_models_files_serve_embeddings_where_the_settings_say_how(client: openai.OpenAI) -> None:
    assert len(client.embeddings.create(model="raw", input="dog").data[0].embedding) == WIDTH
    with pytest.raises(openai.BadRequestError, match="raw is an embedding model"):
        client.chat.completions.create(model="raw", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    ("model", "told"),
    [("chat", "chat is a chat model"), ("mute", "set pooling in its entry"), ("judge", "is a reranker")],
)
def test_what_makes_no_vectors_says_why(client: openai.OpenAI, model: str, told: str) -> None:
    with pytest.raises(openai.BadRequestError, match=told) as refused:
        client.embeddings.create(model=model, input="dog")
    assert refused.value.param == "model"


def test_too_long_is_a_400_or_cut(client: openai.OpenAI) -> None:
    long = "fox " * 100
    with pytest.raises(openai.BadRequestError, match="tokens longer") as refused:
        client.embeddings.create(model="vec", input=["dog", long])
    assert (refused.value.param, refused.value.code) == ("input.1", "context_length_exceeded")
    cut = client.embeddings.create(model="vec", input=["dog", long], extra_body={"truncate": True})
    assert cut.usage.prompt_tokens == 3 + 64


def test_documents_are_ranked(running: Service) -> None:
    body = {"model": "judge", "query": TEXTS[2], "documents": [*TEXTS, {"text": "paris"}], "return_documents": True}
    told = httpx2.post(f"{running.url}/v1/rerank", json=body).json()
    scores = [it["relevance_score"] for it in told["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)
    assert {it["index"]: it["document"]["text"] for it in told["results"]} == dict(enumerate([*TEXTS, "paris"]))


def test_base64_is_little_endian(running: Service) -> None:
    asked = {"model": "vec", "input": "dog"}
    plain = httpx2.post(f"{running.url}/v1/embeddings", json=asked).json()["data"][0]["embedding"]
    coded = httpx2.post(f"{running.url}/v1/embeddings", json=asked | {"encoding_format": "base64"}).json()
    assert list(struct.unpack(f"<{WIDTH}f", base64.b64decode(coded["data"][0]["embedding"]))) == plain


def test_unloaded_its_process_and_memory_are_gone(client: openai.OpenAI, running: Service) -> None:
    client.embeddings.create(model="vec", input="dog")
    before = resident(running.url)["vec"]
    assert before.nbytes > 0
    assert before.pid is not None
    assert httpx2.post(f"{running.url}/admin/models/vec/unload").status_code == 200
    assert "vec" not in resident(running.url)
    with pytest.raises(ProcessLookupError):
        os.kill(before.pid, 0)
    client.embeddings.create(model="vec", input="dog")
    assert resident(running.url)["vec"].pid != before.pid


async def test_a_stream_of_another_model_goes_on_beside_a_large_request(running: Service) -> None:
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        many = asyncio.create_task(client.embeddings.create(model="vec", input=TEXTS[:3] * 600))
        began, pieces = time.perf_counter(), 0
        stream = await client.completions.create(
            model="chat", prompt="hi", max_tokens=60, stream=True, extra_body={"ignore_eos": True}
        )
        async for _ in stream:
            pieces += 1
        assert pieces > 1
        assert len((await many).data) == 1800
        assert time.perf_counter() - began < 60
