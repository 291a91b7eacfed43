"""Every field of a sampling changes what is drawn, on the host and on the device."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from msgspec.structs import fields

from app.engine.mlx.draw.logits import LogitsProcessor
from app.engine.mlx.draw.step import DeviceStep, HostStep
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


@pytest.fixture(params=[HostStep, DeviceStep])
def says(request: pytest.FixtureRequest) -> Callable[..., list[int]]:
    """200 tokens drawn one after the other."""
    logits = np.random.default_rng(8).normal(0, 1, (1, VOCABULARY)).astype(np.float32)
    logits[0, [1, 2, 3]] = 7  # 1 and 2 stand in the prompt

    def draw(**sampling: Any) -> list[int]:
        rows = [row(**{"seed": 5, **sampling})]
        processor = LogitsProcessor(rows)

        def token() -> int:
            step = request.param(rows, mx.array(logits), processor.process(mx.array(logits)))
            processor.count(step.tokens)
            return step.read()[0][0]

        return [token() for _ in range(200)]

    return draw


@pytest.mark.parametrize("name", [field.name for field in fields(Sampling)])
def test_every_field_changes_what_is_drawn(says: Callable[..., list[int]], name: str) -> None:
    assert says() == says()
    assert says(**{name: TELLING[name]}) != says()
