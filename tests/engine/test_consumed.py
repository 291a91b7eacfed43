"""Every field of a sampling changes what is drawn, on the host and on the device."""

import mlx.core as mx
import numpy as np
import pytest
from msgspec.structs import fields

from app.engine.mlx.sampling import Sampler
from app.schemas.sampling import Sampling
from tests.engine.test_sampling import VOCABULARY, row

TELLING = {
    "temperature": 0.2,
    "top_p": 0.1,
    "top_k": 2,
    "min_p": 0.9,
    "frequency_penalty": 2.0,
    "presence_penalty": 2.0,
    "repetition_penalty": 10.0,
    "logit_bias": ((900, 100.0),),
    "seed": 6,
}


@pytest.fixture(params=["host", "device"])
def says(request):
    """200 tokens drawn one after the other."""
    logits = np.random.default_rng(8).normal(0, 1, (1, VOCABULARY)).astype(np.float32)
    logits[0, [1, 2, 3]] = 7  # 1 and 2 stand in the prompt

    def draw(**sampling):
        sampler = Sampler([row(**{"seed": 5, **sampling})])
        if request.param == "device":
            sampler._on_host = []
        return [sampler.draw(mx.array(logits)).item() for _ in range(200)]

    return draw


@pytest.mark.parametrize("name", [field.name for field in fields(Sampling)])
def test_every_field_changes_what_is_drawn(says, name):
    assert says() == says()
    assert says(**{name: TELLING[name]}) != says()
