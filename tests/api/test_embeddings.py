"""``/v1/embeddings`` and ``/v1/rerank`` over scripted engines: what is read, what is refused, what is told."""

import asyncio
import base64
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar import Litestar

from app.api.read.embeddings import embed_job
from app.engine.vectors import Embedding, Ranking
from app.errors import InvalidRequest
from app.main import create_app
from app.schemas.embeddings import EmbeddingRequest
from app.settings import Settings
from tests.support.asgi import exchange, request
from tests.support.encoders import add_modules, write_config
from tests.support.house import scripted_registry
from tests.support.scripted import ScriptedLoader

EMBED = {"model": "vec", "input": "fox"}
RANK = {"model": "judge", "query": "abc", "documents": ["xyz", "abc", {"text": "abz", "id": 7}]}


@pytest.fixture
async def app(loader: ScriptedLoader, tmp_path: Path) -> AsyncIterator[Litestar]:
    for name, config in (
        ("vec", {"model_type": "bert", "architectures": ["BertModel"]}),
        ("judge", {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}),
    ):
        directory = tmp_path / "models" / name
        directory.mkdir(parents=True)
        write_config(directory, config)
        (directory / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    add_modules(tmp_path / "models" / "vec", ("Pooling", {"pooling_mode": "mean"}))
    async with scripted_registry(loader, tmp_path) as registry:
        yield create_app(Settings(), registry=registry)


async def test_a_text_becomes_a_vector(app: Litestar) -> None:
    answer = await request(app, "POST", "/v1/embeddings", EMBED)
    assert answer.status == 200
    assert answer.json() == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [3.0, 0.5, 0.25, 0.125]}],
        "model": "vec",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    assert "load;dur=" in answer.headers["server-timing"]


async def test_base64_has_the_same_numbers(app: Litestar) -> None:
    texts = ["a", "bb", "ccc"]
    told = (await request(app, "POST", "/v1/embeddings", EMBED | {"input": texts, "encoding_format": "base64"})).json()
    rows = [struct.unpack("<4f", base64.b64decode(it["embedding"])) for it in told["data"]]
    assert rows == [(float(len(text)), 0.5, 0.25, 0.125) for text in texts]
    assert [it["index"] for it in told["data"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("sent", "texts", "how"),
    [
        ({"input": "fox"}, ("fox",), {}),
        ({"input": ""}, ("",), {}),
        ({"input": ["a", "b"]}, ("a", "b"), {}),
        ({"input": [5, 6]}, ((5, 6),), {}),
        ({"input": [[5, 6], [7]]}, ((5, 6), (7,)), {}),
        ({"input": "a", "dimensions": 2, "user": "me"}, ("a",), {"dimensions": 2}),
        ({"input": "a", "input_type": "search_query"}, ("a",), {"input_type": "query"}),
        ({"input": "a", "input_type": "passage"}, ("a",), {"input_type": "document"}),
        ({"input": "a", "prompt_name": "STS"}, ("a",), {"prompt_name": "STS"}),
        ({"input": "a", "truncate": True}, ("a",), {"truncate": "end"}),
        ({"input": "a", "truncate": "START"}, ("a",), {"truncate": "start"}),
        ({"input": "a", "truncate": "NONE"}, ("a",), {}),
    ],
)
async def test_every_spelling_reaches_the_engine(
    app: Litestar,
    loader: ScriptedLoader,
    sent: dict[str, Any],
    texts: tuple[str | tuple[int, ...], ...],
    how: dict[str, Any],
) -> None:
    assert (await request(app, "POST", "/v1/embeddings", {"model": "vec", **sent})).status == 200
    assert loader.engines["vec"].embedded == [(texts, Embedding(**how))]


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ["a", 5]}, "input"),
        ({"input": [[5], "a"]}, "input"),
        ({"input": [-1]}, "input.0"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": None}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"input_type": "image"}, "input_type"),
        ({"input_type": "query", "prompt_name": "query"}, "prompt_name"),
        ({"truncate": "middle"}, "truncate"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"input": "refused"}, "input"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(app: Litestar, sent: dict[str, Any], param: str) -> None:
    answer = await request(app, "POST", "/v1/embeddings", EMBED | sent)
    assert (answer.status, answer.error["param"]) == (400, param)


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
async def test_documents_come_back_the_most_relevant_first(app: Litestar, path: str) -> None:
    told = (await request(app, "POST", path, RANK)).json()
    assert [(it["index"], it["relevance_score"]) for it in told["results"]] == [(1, 1.0), (2, 2 / 3), (0, 0.0)]
    assert told["model"] == "judge"
    assert told["usage"] == {"prompt_tokens": 18, "total_tokens": 18}
    assert all("document" not in it for it in told["results"])


async def test_only_the_best_with_their_texts(app: Litestar, loader: ScriptedLoader) -> None:
    sent = RANK | {"top_n": 2, "return_documents": True, "instruction": "judge", "truncate": False}
    told = (await request(app, "POST", "/v1/rerank", sent)).json()
    assert [it["document"] for it in told["results"]] == [{"text": "abc"}, {"text": "abz"}]
    assert loader.engines["judge"].ranked[0][2] == Ranking(instruction="judge", truncate=False)
    assert len((await request(app, "POST", "/v1/rerank", RANK | {"top_n": 99})).json()["results"]) == 3


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": [{"title": "x"}]}, "documents.0.text"),
        ({"documents": "abc"}, "documents"),
        ({"query": ""}, "query"),
        ({"top_n": 0}, "top_n"),
    ],
)
async def test_what_cannot_be_ranked_is_refused_by_name(app: Litestar, sent: dict[str, Any], param: str) -> None:
    answer = await request(app, "POST", "/v1/rerank", RANK | sent)
    assert (answer.status, answer.error["param"]) == (400, param)


CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("path", "body", "model", "told"),
    [
        ("/v1/embeddings", {"input": "a"}, "tiny", "tiny is a chat model"),
        ("/v1/embeddings", {"input": "a"}, "judge", "judge is a reranker"),
        ("/v1/rerank", {"query": "a", "documents": ["b"]}, "tiny", "tiny is a chat model"),
        ("/v1/rerank", {"query": "a", "documents": ["b"]}, "vec", "vec is an embedding model"),
        ("/v1/chat/completions", CHAT, "vec", "vec is an embedding model"),
        ("/v1/completions", {"prompt": "a"}, "judge", "judge is a reranker"),
        ("/v1/responses", {"input": "a"}, "vec", "vec is an embedding model"),
    ],
)
async def test_a_model_asked_for_what_it_is_not_for_says_what_it_is(
    app: Litestar, path: str, body: dict[str, Any], model: str, told: str
) -> None:
    answer = await request(app, "POST", path, {"model": model, **body})
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, "model", "model_kind")
    assert told in answer.error["message"]


async def test_listings_tell_the_kind_of_each_model(app: Litestar) -> None:
    cards = {it["id"]: it for it in (await request(app, "GET", "/v1/models")).json()["data"]}
    kinds = {name: cards[name]["kind"] for name in ("tiny", "vec", "judge")}
    assert kinds == {"tiny": "text", "vec": "embedding", "judge": "rerank"}
    assert cards["vec"]["capabilities"]["embeddings"] is True
    assert cards["vec"]["capabilities"]["completions"] is False
    assert cards["judge"]["capabilities"]["rerank"] is True


async def test_the_journal_knows_whom_it_asked_and_how_many_tokens(app: Litestar) -> None:
    await request(app, "POST", "/v1/embeddings", EMBED | {"input": ["a" * 30, "b"]})
    (entry,) = app.state.middleware._journal.entries()
    assert (entry.model, entry.prompt_tokens, entry.completion_tokens, entry.outcome) == ("vec", 31, 0, "answered")


async def test_a_client_that_goes_takes_its_computation_with_it(app: Litestar, loader: ScriptedLoader) -> None:
    await request(app, "POST", "/v1/embeddings", EMBED)
    engine = loader.engines["vec"]
    engine.may_step.clear()
    async with exchange(app, "POST", "/v1/embeddings", msgspec.json.encode(EMBED)) as asked:
        await asyncio.sleep(0.05)
        asked.disconnect()
        await asyncio.wait_for(asked.over(), 5)
    assert len(engine.embedded) == 1


async def test_a_process_that_is_lost_is_a_503(app: Litestar, loader: ScriptedLoader) -> None:
    await request(app, "POST", "/v1/embeddings", EMBED)
    engine = loader.engines["vec"]
    engine.may_step.clear()
    task = asyncio.create_task(request(app, "POST", "/v1/embeddings", EMBED))
    await asyncio.sleep(0.05)
    engine.lose()
    engine.may_step.set()
    answer = await task
    assert (answer.status, answer.error["code"]) == (503, "engine_lost")


TEXT = st.text(max_size=5)
IDS = st.lists(st.integers(-2, 2**31), max_size=4)
ANY = st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda it: st.lists(it, max_size=4), max_leaves=6)


@given(st.lists(TEXT | st.integers(0, 9) | IDS, max_size=5) | TEXT)
def test_inputs_are_one_kind_or_refused(given: Any) -> None:
    asked = EmbeddingRequest(input=given)
    same = isinstance(given, str) or (bool(given) and len({type(it) for it in given}) == 1)
    if same:
        ids = isinstance(given, list) and isinstance(given[0], int)
        assert len(embed_job(asked).texts) == (1 if ids or isinstance(given, str) else len(given))
    else:
        with pytest.raises(InvalidRequest):
            embed_job(asked)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["input", "dimensions", "truncate", "input_type", "prompt_name", "user"]), ANY))
async def test_whatever_is_sent_the_answer_has_its_shape(app: Litestar, body: dict[str, Any]) -> None:
    answer = await request(app, "POST", "/v1/embeddings", {"model": "vec"} | body)
    assert answer.status in {200, 400}
    assert ("error" in answer.json()) == (answer.status == 400)
