"""Marks in a text that comes piece by piece."""

from collections.abc import Sequence


def certain(text: str, marks: Sequence[str]) -> int:
    """How many characters of ``text`` belong to none of ``marks``, whatever comes next."""
    return min((_before(text, mark) for mark in marks), default=len(text))


def first(text: str, marks: Sequence[str]) -> tuple[int, str] | None:
    """Where the first of ``marks`` stands in ``text``, the longest where several begin."""
    found = [(text.index(mark), -len(mark), mark) for mark in marks if mark in text]
    if not found:
        return None
    at, _, mark = min(found)
    return at, mark


def _before(text: str, mark: str) -> int:
    at = text.find(mark)
    if at >= 0:
        return at
    for length in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:length]):
            return len(text) - length
    return len(text)
