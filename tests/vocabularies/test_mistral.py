"""Mistral's vocabularies say the ids of mistral-common's files, whatever is around them."""

import base64
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import regex
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from app.engine.mlx.text.tekken import PATTERN, mend
from app.engine.mlx.text.tokenizer import MLXTokenizer
from tests.support.pypi import pypi_package
from tests.vocabularies.conversations import ODD
from tests.vocabularies.real import directory

COMMON = "mistral-common==1.13.1"
SPECIALS = 1000
"""Ids below those of tekken's ranks."""
OTHERS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Llama 3's pattern, as files of Mistral's models have it by mistake."""
WORDS = ("नमस्ते दुनिया", "ภาษาไทย", "שָׁלוֹם", "e\u0301té", "  )\n/.1ll", "camelCase XMLHttp", "I'LL", "//\n/", "12345")
pieces = st.lists(st.one_of(st.sampled_from((*ODD, *WORDS)), st.text(max_size=6)), max_size=4).map("".join)


class Common(msgspec.Struct):
    """A tekken file of mistral-common."""

    config: dict[str, Any]
    vocab: list[dict[str, Any]]


class Tekken:
    """Byte pairs merged by rank within the pattern's pieces: the reference, in the fewest lines."""

    def __init__(self, file: Path) -> None:
        read = msgspec.json.decode(file.read_bytes(), type=Common)
        size = int(read.config["default_vocab_size"]) - SPECIALS
        self.ranks = {base64.b64decode(it["token_bytes"]): it["rank"] for it in read.vocab[:size]}
        self.pattern = regex.compile(read.config["pattern"])

    def encode(self, text: str) -> list[int]:
        return [token for piece in self.pattern.findall(text) for token in self._merged(piece.encode())]

    def _merged(self, piece: bytes) -> list[int]:
        parts = [piece[i : i + 1] for i in range(len(piece))]
        while True:
            ranks = [self.ranks.get(a + b) for a, b in pairwise(parts)]
            best = min((rank for rank in ranks if rank is not None), default=None)
            if best is None:
                return [self.ranks[part] + SPECIALS for part in parts]
            at = ranks.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]


@pytest.fixture(scope="module")
def common() -> Path:
    return pypi_package(COMMON, "mistral_common/data")


@pytest.fixture(scope="module")
def reference(common: Path) -> Tekken:
    return Tekken(common / "tekken_240718.json")


@pytest.fixture(scope="module")
def nemo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return directory("mistral_nemo", tmp_path_factory.mktemp("nemo"))


@pytest.fixture(scope="module")
def published(nemo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same vocabulary in a model of that architecture, cut as others' are."""
    path = shutil.copytree(nemo, tmp_path_factory.mktemp("published") / "small")
    told = json.loads((path / "tokenizer.json").read_text())
    told["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": OTHERS}
    (path / "tokenizer.json").write_text(json.dumps(told))
    (path / "config.json").write_text('{"model_type": "mistral3", "transformers_version": "4.52.4"}')
    return path


@pytest.fixture(scope="module")
def mended(published: Path) -> MLXTokenizer:
    return MLXTokenizer.load(published, None)


def test_the_pattern_is_mistral_commons(common: Path) -> None:
    for file in sorted(common.glob("tekken_*.json")):
        assert msgspec.json.decode(file.read_bytes(), type=Common).config["pattern"] == PATTERN


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=pieces)
def test_a_tekken_vocabulary_that_is_cut_as_others_are_says_mistral_commons_ids(
    mended: MLXTokenizer, reference: Tekken, text: str
) -> None:
    assert mended.encode(text, special_tokens=False) == reference.encode(text)


def test_without_that_it_says_others(published: Path, mended: MLXTokenizer, reference: Tekken) -> None:
    plain = Tokenizer.from_file(str(published / "tokenizer.json"))
    assert plain.encode(WORDS[0], add_special_tokens=False).ids != reference.encode(WORDS[0])


def test_what_is_cut_rightly_stays_as_it_is(nemo: Path) -> None:
    assert not mend(Tokenizer.from_file(str(nemo / "tokenizer.json")))


@pytest.mark.parametrize(
    ("merged", "cut", "mark", "mends"),
    [
        ("ab", OTHERS, "[INST]", True),
        ("12", OTHERS, "[INST]", False),
        ("aB", OTHERS, "[INST]", False),
        ("ab", OTHERS, "<s>", False),
        ("ab", PATTERN, "[INST]", False),
        ("ab", None, "[INST]", False),
    ],
)
def test_the_vocabulary_decides_whether_a_pattern_is_a_mistake(
    merged: str, cut: str | None, mark: str, mends: bool
) -> None:
    pieces = {piece: at for at, piece in enumerate([*"abB12", merged])}
    tokenizer = Tokenizer(models.BPE(pieces, [(merged[0], merged[1])]))
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut is None)
    split = [] if cut is None else [pre_tokenizers.Split(Regex(cut), behavior="isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, bytes_])
    tokenizer.add_special_tokens([mark, "<SPECIAL_12>"])
    assert mend(tokenizer) is mends
    assert not mend(tokenizer)


@pytest.mark.parametrize("name", ["tokenizer.model.v1", "mistral_instruct_tokenizer_240323.model.v3"])
def test_sentencepiece_vocabularies_say_their_own_ids(common: Path, tmp_path: Path, name: str) -> None:
    shutil.copyfile(common / name, tmp_path / "tokenizer.model")
    (tmp_path / "config.json").write_text('{"model_type": "mistral", "transformers_version": "4.40.0"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "legacy": false}')
    mine, its = MLXTokenizer.load(tmp_path, None), SentencePieceProcessor(model_file=str(common / name))
    for text in (f"It is {it} so." for it in (*ODD, *WORDS)):
        assert mine.encode(text, special_tokens=False) == its.encode(text), text
        assert mine.decode(tuple(mine.encode(text, special_tokens=False))) == its.decode(its.encode(text))
