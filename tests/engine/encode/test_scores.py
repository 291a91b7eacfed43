"""Scores are those that numpy makes of the checkpoint's files."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.engine.kind import kind_of
from app.engine.mlx.encode.engine import MLXEncoder
from app.engine.mlx.encode.rerank import AFTER, BEFORE, INSTRUCTION
from app.engine.mlx.load.loader import MLXLoader
from app.engine.vectors import Embedding, Ranking
from app.errors import InvalidRequest, ModelUnusable
from tests.engine.encode import reference
from tests.support.encoders import add_modules, make_bert, make_decoder, make_modernbert, read

QUERY = "what is the capital of france"
DOCUMENTS = ("paris is the capital of france", "the dog sleeps", "", "one two three four five " * 4)


@pytest.fixture
async def load(loader: MLXLoader) -> AsyncIterator[Callable[..., Awaitable[MLXEncoder]]]:
    """Loads directories, and unloads what was loaded."""
    engines = []

    async def loaded(directory: Path, name: str = "it") -> MLXEncoder:
        assert kind_of(directory, name=name) == "rerank"
        engines.append(await loader.encoder(directory, "rerank", name=name))
        return engines[-1]

    yield loaded
    for engine in engines:
        await engine.close()


async def scores(
    engine: MLXEncoder, documents: tuple[str, ...] = DOCUMENTS, query: str = QUERY, **how: Any
) -> tuple[float, ...]:
    return (await engine.rerank(query, documents, Ranking(**how))).values


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("squashed", [True, False])
async def test_cross_encoders_score_pairs(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path, family: str, squashed: bool
) -> None:
    told: dict[str, Any] = (
        {} if squashed else {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
    )
    prefix = "roberta." if family == "roberta" else "bert."
    directory = make_bert(tmp_path / "it", family=family, classifier=True, prefix=prefix, **told)
    engine = await load(directory)
    config = json.loads((directory / "config.json").read_text())
    weights = {name.removeprefix(prefix): it for name, it in read(directory / "model.safetensors").items()}
    for document, score in zip(DOCUMENTS, await scores(engine), strict=True):
        asked, found = (engine.encode(text, special_tokens=False) for text in (QUERY, document))
        middle = [3, 3] if family == "roberta" else [3]
        ids = [2, *asked, *middle, *found, 3]
        types = None if family == "roberta" else [0] * (len(asked) + 2) + [1] * (len(found) + 1)
        logit = reference.bert_logit(weights, config, ids, types)
        assert score == pytest.approx(reference.sigmoid(logit) if squashed else logit, abs=1e-4)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
async def test_modernbert_scores_pairs(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path, pooling: str
) -> None:
    directory = make_modernbert(tmp_path / "it", classifier=True, classifier_pooling=pooling)
    engine = await load(directory)
    config, weights = json.loads((directory / "config.json").read_text()), read(directory / "model.safetensors")
    for document, score in zip(DOCUMENTS, await scores(engine), strict=True):
        asked, found = (engine.encode(text, special_tokens=False) for text in (QUERY, document))
        logit = reference.modernbert_logit(weights, config, [2, *asked, 3, *found, 3])
        assert score == pytest.approx(reference.sigmoid(logit), abs=1e-4)


async def test_a_causal_judge_says_how_likely_yes_is_under_its_own_prompt(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path
) -> None:
    directory = make_decoder(tmp_path / "it", ends=False)
    engine = await load(directory, name="org/Qwen3-Reranker-0.6B-4bit")
    config, weights = json.loads((directory / "config.json").read_text()), read(directory / "model.safetensors")
    for instruction in (None, "search in one document"):
        found = await scores(engine, DOCUMENTS[:3], instruction=instruction)
        for document, score in zip(DOCUMENTS, found, strict=False):
            task = INSTRUCTION if instruction is None else instruction
            asked = f"<Instruct>: {task}\n<Query>: {QUERY}\n<Document>: {document}"
            ids = [token for text in (BEFORE, asked, AFTER) for token in engine.encode(text, special_tokens=False)]
            last = reference.decoder(weights, config, ids)[-1]
            yes, no = (last @ weights["model.embed_tokens.weight"][engine.tokenizer.id_of(it)] for it in ("yes", "no"))
            assert score == pytest.approx(np.exp(yes) / (np.exp(yes) + np.exp(no)), abs=1e-4)


async def test_a_document_that_is_too_long_loses_its_end_or_is_refused(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path
) -> None:
    engine = await load(make_bert(tmp_path / "it", classifier=True, max_position_embeddings=20))
    room = 20 - 3 - len(engine.encode(QUERY, special_tokens=False))
    cut = " ".join(DOCUMENTS[3].split()[:room])
    assert await scores(engine, (DOCUMENTS[3],)) == pytest.approx(await scores(engine, (cut,)))
    with pytest.raises(InvalidRequest, match="tokens longer") as refused:
        await scores(engine, truncate=False)
    assert refused.value.param == "documents.3"
    with pytest.raises(InvalidRequest, match="no room") as refused:
        await scores(engine, query="fox " * 18)
    assert refused.value.param == "query"


async def test_files_may_say_which_tokens_are_yes_and_no(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path
) -> None:
    directory = make_decoder(tmp_path / "it", ends=False)
    plain = await load(directory, name="qwen3-reranker")
    yes, no = (plain.tokenizer.id_of(it) for it in ("yes", "no"))
    add_modules(directory, ("LogitScore", {"true_token_id": yes, "false_token_id": no}))
    assert await scores(await load(directory)) == await scores(plain)
    other = add_modules(make_decoder(tmp_path / "other"), ("LogitScore", {"true_token_id": 9, "false_token_id": None}))
    with pytest.raises(ModelUnusable, match="how it is asked for a score is not known"):
        await load(other)


async def test_a_classifier_of_several_labels_is_no_reranker(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path
) -> None:
    directory = make_bert(tmp_path / "it", classifier=True)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"id2label": {"0": "bad", "1": "good"}}))
    with pytest.raises(ModelUnusable, match="2 labels"):
        await load(directory)


async def test_what_a_model_is_not_for_is_told_with_what_it_is_for(
    load: Callable[..., Awaitable[MLXEncoder]], tmp_path: Path
) -> None:
    engine = await load(make_bert(tmp_path / "it", classifier=True), name="org/judge")
    with pytest.raises(InvalidRequest, match="org/judge is a reranker"):
        await engine.embed(("fox",), Embedding())
