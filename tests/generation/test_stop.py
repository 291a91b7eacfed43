"""Stop strings: any split of a text gives the same output, and no part of a stop string ever leaves."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.generation.choice import StopMachine

ALPHABET = "ab\n é🙂"
TEXTS = st.text(ALPHABET, max_size=40)
STOPS = st.lists(st.text(ALPHABET, min_size=1, max_size=4), min_size=1, max_size=64)


def run(pieces: list[str], stops: list[str]) -> tuple[list[str], str | None]:
    machine = StopMachine(stops)
    out = [machine.push(piece) for piece in pieces]
    return [*out, machine.finish()], machine.found


def expected(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The text before the first stop string, and which it is: the shortest of those that begin there."""
    found = [(text.index(stop), len(stop), stop) for stop in stops if stop in text]
    return (text[: min(found)[0]], min(found)[2]) if found else (text, None)


@given(TEXTS, STOPS, st.lists(st.integers(0, 40), max_size=8))
def test_any_split_gives_the_text_before_the_first_stop_string(text: str, stops: list[str], cuts: list[int]) -> None:
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [text[a:b] for a, b in pairwise(places)]
    out, found = run(pieces, stops)
    assert ("".join(out), found) == expected(text, stops)


@given(TEXTS, STOPS)
def test_nothing_that_could_begin_a_stop_string_leaves_early(text: str, stops: list[str]) -> None:
    machine = StopMachine(stops)
    sent = ""
    for character in text:
        sent += machine.push(character)
        if machine.stopped:
            break
    assert not any(stop in sent for stop in stops)
    assert "".join(text).startswith(sent)


def test_text_without_stop_strings_passes_at_once() -> None:
    assert run(["one", " two"], []) == (["one", " two", ""], None)


def test_a_beginning_that_turns_out_otherwise_is_let_through() -> None:
    assert run(["a\n", "\nb", "\n\n\nc"], ["\n\n\n"]) == (["a", "\n\nb", "", ""], "\n\n\n")


def test_a_stop_string_inside_what_was_held_for_another_stops_at_the_end() -> None:
    assert run(["abcd"], ["cd", "abcdef"]) == (["", "ab"], "cd")


def test_nothing_comes_after_a_stop_string() -> None:
    machine = StopMachine(["END"])
    assert machine.push("one END two") == "one "
    assert machine.push("three") == ""
