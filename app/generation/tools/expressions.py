"""Regular expressions as JSON Schema means them, for grammars that match whole texts."""

import re
from collections.abc import Iterator

from app.generation.tools.rules import slashed

ANYTHING = r"(?s:.*)"
ASCII = {r"\d": "[0-9]", r"\D": "[^0-9]", r"\w": "[0-9A-Za-z_]", r"\W": "[^0-9A-Za-z_]"}
"""ECMA-262's classes, where other engines take all of Unicode."""
CLASS = re.compile(r"\\.", re.DOTALL)


def searched(pattern: str) -> str:
    """An expression, as it stands between slashes, for all of a text in which ``pattern`` is found anywhere."""
    return "|".join(f"({_whole(branch)})" for branch in _branches(pattern))


def _whole(branch: str) -> str:
    begins, ends = branch.startswith("^"), re.search(r"(?<!\\)(\\\\)*\$$", branch) is not None
    inner = slashed(branch[1 if begins else 0 : -1 if ends else None])
    spelt = CLASS.sub(lambda found: ASCII.get(found.group(), found.group()), inner)
    return f"{'' if begins else ANYTHING}({spelt}){'' if ends else ANYTHING}"


def _branches(pattern: str) -> Iterator[str]:
    """The alternatives that stand in no group and no class."""
    depth, start, at, in_class = 0, 0, 0, False
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\":
            at += 1
        elif in_class:
            in_class = letter != "]"
        elif letter == "[":
            in_class = True
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter == "|" and depth == 0:
            yield pattern[start:at]
            start = at + 1
        at += 1
    yield pattern[start:]
