import time
from pathlib import Path

import mlx.core as mx
import mlx_lm
import pytest
from mlx_lm.models.cache import make_prompt_cache

from tests.support.tiny import Vocabulary, make_tiny


@pytest.mark.parametrize("vocabulary", ["words", "smollm2"])
def test_a_tiny_model_is_quick_to_make_loads_and_repeats_itself(tmp_path: Path, vocabulary: Vocabulary) -> None:
    make_tiny(tmp_path / "warm", seed=1, vocabulary=vocabulary)
    begun = time.perf_counter()
    first = make_tiny(tmp_path / "a", seed=1, vocabulary=vocabulary)
    assert time.perf_counter() - begun < 1
    make_tiny(tmp_path / "b", seed=1, vocabulary=vocabulary)
    make_tiny(tmp_path / "c", seed=2, vocabulary=vocabulary)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]

    model, tokenizer = mlx_lm.load(str(first))
    text = "Grüße, 12 🙂 <|im_end|>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    cache, tokens, said = make_prompt_cache(model), mx.array([prompt]), set()
    for _ in range(16):
        tokens = mx.argmax(model(tokens, cache=cache)[:, -1:], axis=-1)
        said.add(tokens.item())
    assert len(said) > 4
