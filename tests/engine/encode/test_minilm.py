"""A model of the world, against the same weights in numpy and 64 bits."""

import json
from collections.abc import AsyncIterator

import numpy as np
import pytest

from app.engine.mlx.encode.engine import MLXEncoder
from app.engine.mlx.load.loader import MLXLoader
from app.engine.vectors import Embedding
from tests.engine.encode import reference
from tests.engine.encode.test_vectors import vectors
from tests.support.encoders import read
from tests.support.minilm import minilm

TEXTS = (
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "Grüße, 日本語 und 🙂 - naïve café",
    "",
    "A model reads a prompt and writes an answer, one token after the other, until it stops. " * 9,
)


@pytest.fixture(scope="module")
async def engine(loader: MLXLoader) -> AsyncIterator[MLXEncoder]:
    engine = await loader.encoder(minilm(), "embedding", name="all-MiniLM-L6-v2")
    yield engine
    await engine.close()


async def test_its_vectors_are_those_of_its_weights(engine: MLXEncoder) -> None:
    directory = minilm()
    weights, config = read(directory / "model.safetensors"), json.loads((directory / "config.json").read_text())
    found = vectors(await engine.embed(TEXTS, Embedding()))
    for text, vector in zip(TEXTS, found, strict=True):
        wanted = reference.unit(reference.bert(weights, config, engine.encode(text)).mean(0))
        assert vector @ wanted >= 0.9999
        np.testing.assert_allclose(vector, wanted, atol=1e-5)


async def test_it_says_how_alike_texts_are_as_its_authors_do(engine: MLXEncoder) -> None:
    """The figures of sentence-transformers' first example, to four digits."""
    first, second, third = vectors(await engine.embed(TEXTS[:3], Embedding()))
    assert [first @ second, first @ third, second @ third] == pytest.approx([0.6660, 0.1046, 0.1411], abs=1e-4)


async def test_beside_longer_texts_it_says_what_it_says_alone(engine: MLXEncoder) -> None:
    together = vectors(await engine.embed(TEXTS, Embedding()))
    alone = [vectors(await engine.embed((text,), Embedding()))[0] for text in TEXTS]
    np.testing.assert_allclose(together, alone, atol=2e-6)
