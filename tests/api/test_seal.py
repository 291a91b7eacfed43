"""Signed thoughts: what was signed here comes back, everything else is nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.seal import Seal

SEAL = Seal(("one",))


@settings(deadline=None)
@given(st.text())
def test_a_signed_text_comes_back(text: str) -> None:
    blob = SEAL.sign(text)
    assert SEAL.read(blob) == text
    assert blob.isascii()
    assert "\n" not in blob


@settings(deadline=None)
@given(st.text(), st.integers(0), st.characters())
def test_a_blob_of_which_one_character_is_another_is_nothing(text: str, at: int, other: str) -> None:
    blob = SEAL.sign(text)
    at %= len(blob)
    changed = blob[:at] + other + blob[at + 1 :]
    assert changed == blob or SEAL.read(changed) is None


@settings(deadline=None)
@given(st.text())
def test_what_others_signed_is_nothing(blob: str) -> None:
    assert SEAL.read(blob) is None
    assert SEAL.read(f"sy1.{blob}") is None


def test_other_keys_know_nothing_of_it_and_older_ones_still_do() -> None:
    blob = SEAL.sign("a thought")
    assert Seal(("two",)).read(blob) is None
    assert Seal().read(blob) is None
    assert Seal(("two", "one")).read(blob) == "a thought"
    assert SEAL.read(Seal(("two", "one")).sign("x")) is None


@pytest.mark.parametrize("blob", ["", ".", "..", "sy1", "sy1..", "sy1.eA==.", "sy2.eA==.eA=="])
def test_odd_blobs_are_nothing(blob: str) -> None:
    assert SEAL.read(blob) is None
