"""The questions of ``questions.jsonl``: the beginning of a sentence, and which continuation is the right one."""

from pathlib import Path

import msgspec


class Question(msgspec.Struct):
    """``answer`` is the place of the right one among ``choices``."""

    question: str
    choices: list[str]
    answer: int


def read(path: Path) -> list[Question]:
    """All of them, a line each."""
    return msgspec.json.Decoder(Question).decode_lines(path.read_bytes())


def accuracy(questions: list[Question], scores: list[list[float]], *, per_byte: bool) -> float:
    """The share of questions whose right choice scores best; ``per_byte`` divides by a choice's length."""
    right = 0
    for it, row in zip(questions, scores, strict=True):
        weighed = [score / (len(choice) if per_byte else 1) for choice, score in zip(it.choices, row, strict=True)]
        right += weighed.index(max(weighed)) == it.answer
    return right / len(questions)
