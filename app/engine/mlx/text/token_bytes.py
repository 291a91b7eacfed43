"""The bytes behind each piece of a vocabulary."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from functools import cache


@cache
def byte_level_alphabet() -> Mapping[str, int]:
    """GPT-2's byte-level alphabet, character to byte.

    Printable Latin-1 bytes stand for themselves, the other 68 for the characters from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


def token_bytes_table(
    pieces: Sequence[str | None], *, added: Mapping[str, int], special: Container[int], byte_level: bool
) -> list[bytes]:
    """One entry per token id.

    Byte-level pieces are spelled in the alphabet above; SentencePiece's use U+2581 for a space and ``<0xNN>`` for a
    single byte. Added tokens are plain text in both, but for those of SentencePiece that are not ``special``: their
    spaces are spelt as the others' are.
    """
    alphabet = byte_level_alphabet()

    def spell(piece: str | None) -> bytes:
        if not piece:
            return b""
        if piece in added:
            plain = byte_level or added[piece] in special
            return (piece if plain else piece.replace("\u2581", " ")).encode()
        if byte_level:
            return b"".join(bytes([alphabet[c]]) if c in alphabet else c.encode() for c in piece)
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("\u2581", " ").encode()

    return [spell(piece) for piece in pieces]
