"""A choice: tokens to text, with stop strings, whole characters and log probabilities."""

from typing import Any

import pytest

from app.engine.base import FinishReason, Token, TopLogprob
from app.generation.choice import Choice
from app.generation.events import Delta
from tests.support.scripted import EOS, ByteDetokenizer, spelling

EOS_TEXT = spelling(EOS).decode()


def tokens(text: str, *, finish: FinishReason | None = None, logprobs: bool = False) -> list[Token]:
    """The tokens of ``text``, a byte each, and EOS where they stop."""
    detokenizer, ids = ByteDetokenizer(), [*text.encode()]
    made = []
    for at, id_ in enumerate([*ids, EOS] if finish == "stop" else ids, start=1):
        end = finish if at == len(ids) + (finish == "stop") else None
        said = detokenizer.push(id_) + (detokenizer.finish() if end else "")
        scored = -0.5 if logprobs else None
        top = (TopLogprob(id_, -0.5, spelling(id_)),) if logprobs and id_ != EOS else ()
        made.append(Token(0, 0, id_, scored, top, end, said, spelling(id_), id_ != EOS))
    return made


def choice(*stops: str, **more: Any) -> Choice:
    return Choice(0, stops, **more)


def run(it: Choice, made: list[Token], *, together: bool) -> list[Delta]:
    """Nothing here calls tools."""
    groups = [made] if together else [[token] for token in made]
    return [delta for group in groups for delta in it.push(group) if isinstance(delta, Delta)]


@pytest.mark.parametrize("together", [True, False])
def test_a_stop_token_ends_the_choice_and_is_counted_but_not_text(together: bool) -> None:
    it = choice()
    deltas = run(it, tokens("Hé!", finish="stop"), together=together)
    assert "".join(delta.text for delta in deltas) == "Hé!"
    assert (it.finished, it.tokens) == ("stop", 5)


@pytest.mark.parametrize("together", [True, False])
def test_a_stop_string_cuts_text_and_log_probabilities_alike(together: bool) -> None:
    it = choice("\n\n")
    deltas = run(it, tokens("ab\n\ncd", logprobs=True), together=together)
    assert "".join(delta.text for delta in deltas) == "ab"
    assert [entry.text for delta in deltas for entry in delta.logprobs] == ["a", "b"]
    assert (it.finished, it.tokens) == ("stop", 4)


def test_text_held_for_a_stop_string_comes_at_the_end_with_its_log_probabilities() -> None:
    it = choice("\n\n")
    deltas = run(it, tokens("a\n", finish="length", logprobs=True), together=False)
    assert [delta.text for delta in deltas] == ["a", "\n"]
    assert [[entry.text for entry in delta.logprobs] for delta in deltas] == [["a"], ["\n"]]
    assert it.finished == "length"


def test_the_token_that_ends_a_choice_is_scored_last_if_it_is_to_be_told() -> None:
    it = choice(tells_end=True)
    deltas = run(it, tokens("ab", finish="stop", logprobs=True), together=False)
    assert "".join(delta.text for delta in deltas) == "ab"
    scored = [entry for delta in deltas for entry in delta.logprobs]
    assert [(entry.text, entry.shown) for entry in scored] == [("a", True), ("b", True), (EOS_TEXT, False)]
    assert it.tokens == len(scored)


def test_the_token_that_ends_a_choice_is_no_part_of_what_a_stop_string_has_cut() -> None:
    it = choice("b", tells_end=True)
    deltas = run(it, tokens("ab", finish="stop", logprobs=True), together=True)
    assert [entry.text for delta in deltas for entry in delta.logprobs] == ["a"]


def test_characters_that_take_several_tokens_arrive_whole() -> None:
    deltas = run(choice(), tokens("🙂é"), together=False)
    assert [delta.text for delta in deltas] == ["🙂", "é"]


def test_every_token_of_a_character_has_its_own_log_probability() -> None:
    deltas = run(choice(), tokens("é", finish="stop", logprobs=True), together=False)
    spelt = [entry.bytes for delta in deltas for entry in delta.logprobs]
    assert spelt == [b"\xc3", b"\xa9"]
