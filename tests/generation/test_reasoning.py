"""Thoughts: opened by the model or by the template, never part of the answer, however the text is split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.text import Marks
from app.generation.reasoning import ReasoningMachine

MARKS = Marks("<think>", "</think>")


def read(pieces: list[str], *, opened: bool) -> tuple[str, str, ReasoningMachine]:
    machine = ReasoningMachine(MARKS, open=opened)
    told = [machine.push(piece) for piece in pieces] + [machine.finish()]
    return "".join(thought for thought, _ in told), "".join(answer for _, answer in told), machine


@pytest.mark.parametrize(
    ("open_", "text", "thought", "answer"),
    [
        (False, "<think>\nHm, 2 < 3.\n</think>\n\nYes.\n", "Hm, 2 < 3.", "Yes.\n"),
        (False, "\n<think>a</think>b", "a", "b"),
        (False, "No thought <think> here </think>", "", "No thought <think> here </think>"),
        (False, " \n plain", "", " \n plain"),
        (False, "<thin", "", "<thin"),
        (False, "<think>cut off </thi", "cut off </thi", ""),
        (False, "<think></think>", "", ""),
        (True, "\nHm.\n</think>\n\nYes.", "Hm.", "Yes."),
        (True, "<think>again</think>Yes <think>", "again", "Yes <think>"),
        (True, "only thought", "only thought", ""),
    ],
)
def test_thought_and_answer(open_: bool, text: str, thought: str, answer: str) -> None:
    said = read([text], opened=open_)
    assert said[:2] == (thought, answer)
    if said[2].answering:
        assert text[said[2].answer_at :].startswith(answer.rstrip())


@given(
    open_=st.booleans(),
    text=st.lists(st.sampled_from(["<think>", "</think>", "<th", "ink>", "</", "\n", " ", "a", "<"])).map("".join),
    data=st.data(),
)
def test_any_split_gives_the_same(open_: bool, text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(pieces, opened=open_)[:2] == read([text], opened=open_)[:2]


def test_what_is_thinking_is_known_token_by_token() -> None:
    machine = ReasoningMachine(MARKS, open=False)
    states = []
    for piece in ["<think>", "a", "b", "</think>", "\n", "c", "d"]:
        before = machine.thinking
        machine.push(piece)
        states.append(before or machine.thinking)
    assert states == [True, True, True, True, False, False, False]
