"""Aliases with ``*``, ``?`` or ``[...]`` in them: names that a client insists on, whatever it asks for."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

WILD = frozenset("*?[")


def is_pattern(alias: str) -> bool:
    """Whether an alias stands for more names than its own."""
    return not WILD.isdisjoint(alias)


class Patterns:
    """Patterns and what each stands for. The one with the most letters of its own comes first, then the first written.

    Names of hub repos have a slash; a pattern without one is not for them.
    """

    def __init__(self, targets: Mapping[str, str]) -> None:
        self._targets = dict(sorted(targets.items(), key=lambda item: -sum(it not in WILD for it in item[0])))

    def find(self, name: str) -> str | None:
        """What the name stands for."""
        for pattern, target in self._targets.items():
            if ("/" in pattern or "/" not in name) and fnmatchcase(name, pattern):
                return target
        return None
