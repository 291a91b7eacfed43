"""A model's first use, before anybody waits for it."""

from __future__ import annotations

import asyncio

from app.engine.base import Sequence
from app.engine.mlx.batch.engine import MLXEngine
from app.schemas.sampling import Sampling

PROMPTS = (64, 40, 20)
"""Tokens. They differ, so that rows are padded, and no two are the beginning of a third that is worth sharing."""
DRAWS = (
    Sampling(temperature=0.0),
    Sampling(temperature=0.7, top_p=0.9, seed=0),
    Sampling(top_k=40, min_p=0.05, frequency_penalty=0.1, presence_penalty=0.1, repetition_penalty=1.1),
    Sampling(temperature=0.0, logit_bias=((0, 1.0),)),
)


async def warm_up(engine: MLXEngine) -> None:
    """Let rows come beside others, be drawn for in every way and go one after another.

    CUDA and Metal compile kernels where they are first needed, some of them for seconds; what stands in a batch of one
    is only a part of them. An engine that fails at this is closed.
    """
    try:
        await asyncio.gather(*(_run(engine, sampling, size) for size in PROMPTS for sampling in DRAWS))
    except BaseException:
        await engine.close()
        raise


async def _run(engine: MLXEngine, sampling: Sampling, size: int) -> None:
    logprobs = 2 if size == max(PROMPTS) else None
    stream = engine.stream((Sequence((0,) * size, sampling, max_tokens=size // 8, logprobs=logprobs),))
    try:
        async for _ in stream:
            pass
    finally:
        stream.close()
