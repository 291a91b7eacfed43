"""Texts that no model could read."""

import time

import pytest

from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.errors import InvalidRequest
from app.generation.length import PIECE, check_length
from tests.support.scripted import ByteTokenizer, ScriptedEngine
from tests.support.tiny import tiny


class Counting(ByteTokenizer):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def encode(self, text, *, special_tokens=True):
        self.seen += len(text)
        return super().encode(text, special_tokens=special_tokens)


@pytest.mark.parametrize("prompt", ["word " * 2_000_000, tuple(range(5000))])
async def test_a_prompt_far_too_long_is_refused_for_little(prompt):
    tokenizer = Counting()
    with pytest.raises(InvalidRequest) as refusal:
        await check_length(ScriptedEngine(tokenizer=tokenizer, context_length=4096), ("short", prompt), "prompt")
    assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "prompt")
    assert tokenizer.seen <= 2 * 4096 + 2 * PIECE


async def test_what_may_fit_is_left_to_be_counted_exactly():
    engine = ScriptedEngine(tokenizer=Counting(), context_length=40_000)
    await check_length(engine, ("a" * 40_000, "b" * 79_000, tuple(range(40_000))), "prompt")


async def test_ten_megabytes_take_a_real_tokenizer_no_time():
    engine = ScriptedEngine(tokenizer=MLXTokenizer.load(tiny(), None), context_length=2048)
    began = time.perf_counter()
    with pytest.raises(InvalidRequest):
        await check_length(engine, ("the quick brown fox " * 500_000,), "messages")
    assert time.perf_counter() - began < 2
