"""Fill in the middle, in each format, with a tokenizer that has its tokens."""

import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors

from app.engine.mlx.text.fim import FORMATS
from app.engine.mlx.text.tokenizer import MLXTokenizer
from tests.support.tiny import make_tiny

WRITTEN = {
    "qwen": "<|fim_prefix|>def f(<|fim_suffix|>    return x<|fim_middle|>",
    "starcoder": "<fim_prefix>def f(<fim_suffix>    return x<fim_middle>",
    "santacoder": "<fim-prefix>def f(<fim-suffix>    return x<fim-middle>",
    "deepseek": "<｜fim▁begin｜>def f(<｜fim▁hole｜>    return x<｜fim▁end｜>",
    "codellama": "▁<PRE>def f(▁<SUF>    return x▁<MID>",
    "codestral": "[SUFFIX]    return x[PREFIX]def f(",
}


def specials(written: str) -> tuple[str, ...]:
    return tuple(piece for piece in re.split(r"def f\(|    return x", written) if piece)


def load(directory: Path, *names: str) -> MLXTokenizer:
    return MLXTokenizer.load(make_tiny(directory, seed=0, specials=names), None)


def test_every_format_is_tried() -> None:
    assert {frozenset(specials(written)) for written in WRITTEN.values()} == {
        frozenset(piece for piece in pieces if "{" not in piece) for pieces in FORMATS
    }


@pytest.mark.parametrize("family", WRITTEN)
def test_a_gap_stands_between_the_marks_of_the_family(tmp_path: Path, family: str) -> None:
    names = specials(WRITTEN[family])
    tokenizer = load(tmp_path, *names)
    ids = tokenizer.fill_in_middle("def f(", "    return x")
    assert ids is not None
    assert b"".join(map(tokenizer.token_bytes, ids)).decode() == WRITTEN[family]
    assert {tokenizer.added_id(name) for name in names} <= set(ids), "each mark is one token"


def test_a_part_of_a_format_is_none(tmp_path: Path) -> None:
    assert load(tmp_path / "none").fill_in_middle("a", "b") is None
    assert load(tmp_path / "two", "<|fim_prefix|>", "<|fim_suffix|>").fill_in_middle("a", "b") is None


def test_what_begins_every_text_begins_this_one(tmp_path: Path) -> None:
    make_tiny(tmp_path, seed=0, specials=specials(WRITTEN["qwen"]))
    written = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    written.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    written.save(str(tmp_path / "tokenizer.json"))
    tokenizer = MLXTokenizer.load(tmp_path, None)
    assert tokenizer.fill_in_middle("a", "b")[:2] == [1, tokenizer.added_id("<|fim_prefix|>")]


def test_either_side_may_be_empty(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, *specials(WRITTEN["qwen"]))
    marks = [tokenizer.added_id(name) for name in ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")]
    assert tokenizer.fill_in_middle("", "") == marks
