"""Texts that no model could read."""

import time
from typing import Any

import pytest

from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.engine.text import COUNTED
from app.errors import InvalidRequest
from app.generation.limits import check_length
from tests.support.scripted import ByteTokenizer, ScriptedEngine
from tests.support.tiny import tiny


class Counting(ByteTokenizer):
    """A real tokenizer that is asked as an engine is, and how much it was given."""

    def __init__(self) -> None:
        super().__init__()
        self._real = MLXTokenizer.load(tiny(), None)
        self.seen = 0

    async def count(self, text: str, enough: int) -> int:
        encode = self._real.encode

        def counted(piece: str, **more: Any) -> list[int]:
            self.seen += len(piece)
            return encode(piece, **more)

        self._real.encode = counted  # type: ignore[method-assign, assignment]
        return self._real.count(text, enough)


@pytest.mark.parametrize("prompt", ["word " * 2_000_000, tuple(range(5000))])
async def test_a_prompt_far_too_long_is_refused_for_little(prompt: str | tuple[int, ...]) -> None:
    tokenizer = Counting()
    began = time.perf_counter()
    with pytest.raises(InvalidRequest) as refusal:
        await check_length(ScriptedEngine(tokenizer=tokenizer, context_length=4096), ("short", prompt), "prompt")
    assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "prompt")
    assert tokenizer.seen <= 16 * 4096 + 16 * COUNTED
    assert time.perf_counter() - began < 2


async def test_what_may_fit_is_left_to_be_counted_exactly() -> None:
    engine = ScriptedEngine(tokenizer=Counting(), context_length=40_000)
    await check_length(engine, ("a" * 40_000, "b" * 79_000, tuple(range(40_000))), "prompt")
