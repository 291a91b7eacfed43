"""Films of screenshots, and the one that the README shows."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.webp import Frame, animated, chunks

ROOT = Path(__file__).parents[2]


def still(data: bytes) -> bytes:
    body = b"WEBPVP8L" + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.integers(0, 50), st.integers(0, 5000)), min_size=1))
def test_a_film_holds_every_frame_where_and_as_long_as_it_shows(made: list[tuple[bytes, int, int]]) -> None:
    frames = [Frame(still(data), 2 * x, 2, 3, 5, span) for data, x, span in made]
    head, _, *rest = chunks(animated(frames, 100, 40))
    assert head == (b"VP8X", bytes([2, 0, 0, 0, 99, 0, 0, 39, 0, 0]))
    assert [name for name, _ in rest] == [b"ANMF"] * len(made)
    for (_, told), (data, x, span) in zip(rest, made, strict=True):
        assert told[:3] == x.to_bytes(3, "little")
        assert told[12:15] == span.to_bytes(3, "little")
        assert told[16:].startswith(b"VP8L" + struct.pack("<I", len(data)) + data)


def test_what_is_no_webp_is_refused() -> None:
    with pytest.raises(ValueError, match="WebP"):
        list(chunks(b"\x89PNG"))


def test_the_readmes_picture_moves_and_is_small() -> None:
    assert "(docs/images/page.webp)" in (ROOT / "README.md").read_text()
    file = (ROOT / "docs" / "images" / "page.webp").read_bytes()
    assert len(file) < 1_000_000
    assert sum(name == b"ANMF" for name, _ in chunks(file)) > 20
