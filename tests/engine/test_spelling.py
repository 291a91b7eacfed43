"""Tokens with the text that they say, as they leave the engine."""

from typing import Any

import pytest

from app.engine.base import FinishReason, Sequence, Token
from app.engine.mlx.text.spelling import SequenceSpelling
from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.schemas.sampling import Sampling
from tests.support.tiny import tiny

EOS = 2


@pytest.fixture(scope="module")
def tokenizer() -> MLXTokenizer:
    return MLXTokenizer.load(tiny(), EOS)


def spelt(tokenizer: MLXTokenizer, ids: list[int], finish: FinishReason | None = None, **asked: Any) -> list[Token]:
    """The tokens of a row, the last of them with ``finish``."""
    row = SequenceSpelling(tokenizer, Sequence((5,), Sampling(), 99, **asked)).row()
    ends = [*[None] * (len(ids) - 1), finish]
    scored = 0.0 if "logprobs" in asked else None
    return [row.spelt(Token(0, 0, it, scored, (), end)) for it, end in zip(ids, ends, strict=True)]


@pytest.mark.parametrize("text", ["The quick brown fox", "Grüße, 日本語, 🙂!", "a\n\n b"])
def test_pieces_make_the_text(tokenizer: MLXTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert "".join(it.text for it in spelt(tokenizer, ids, "length")) == text
    assert "".join(it.text for it in spelt(tokenizer, [*ids, EOS], "stop")) == text


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_character_that_is_cut_off_is_shown_as_such_with_the_last_token(tokenizer: MLXTokenizer, kept: int) -> None:
    ids = [tokenizer.encode(chr(0))[0], *tokenizer.encode("🙂")]
    bytes_ = [it for it in ids if len(tokenizer.token_bytes(it)) == 1][1 : 1 + kept]
    *_, last = spelt(tokenizer, bytes_, "length")
    assert set(last.text) == {"\N{REPLACEMENT CHARACTER}"}
    *_, last = spelt(tokenizer, [*bytes_, EOS], "stop")
    assert set(last.text) == {"\N{REPLACEMENT CHARACTER}"}


def test_special_tokens_are_text_only_where_they_are_kept(tokenizer: MLXTokenizer) -> None:
    mark = tokenizer.added_id("<|im_start|>")
    assert mark is not None
    assert [it.text for it in spelt(tokenizer, [mark])] == [""]
    assert [it.text for it in spelt(tokenizer, [mark], keep=frozenset({mark}))] == ["<|im_start|>"]


def test_bytes_come_with_log_probabilities_alone(tokenizer: MLXTokenizer) -> None:
    ids = tokenizer.encode("é")
    assert [it.raw for it in spelt(tokenizer, ids)] == [b""] * len(ids)
    scored = spelt(tokenizer, [*ids, EOS], "stop", logprobs=0)
    assert b"".join(it.raw for it in scored[:-1]) == "é".encode()
    assert [it.shown for it in scored] == [True] * len(ids) + [False]
