"""Patterns of names that only a few names fulfil: those are properties like any other."""

import re

from app.generation.schema.keywords import AnySchema, Schema, rebuilt

MOST = 64
"""Names that a pattern may stand for."""
COUNTED = re.compile(r"\{(?P<least>[0-9]{1,2})(?:,(?P<most>[0-9]{1,2}))?\}")
SPECIAL = frozenset("\\^$.|?*+()[]{}")


def named(schema: AnySchema) -> AnySchema:
    """``schema`` with each of its ``patternProperties`` that means few names turned into ``properties``.

    A grammar has no word for "a name of this pattern that is none of these" where no such name is left.
    """
    if not isinstance(schema, dict):
        return schema
    made: Schema = rebuilt(schema, lambda _, inner: named(inner))
    patterns = made.pop("patternProperties", {})
    properties, left = dict(made.get("properties", {})), {}
    for pattern, inner in patterns.items():
        names = meant(pattern)
        if names is None:
            left[pattern] = inner
        for name in names or ():
            properties[name] = {"allOf": [properties[name], inner]} if name in properties else inner
    return made | ({"patternProperties": left} if left else {}) | ({"properties": properties} if properties else {})


def meant(pattern: str) -> list[str] | None:
    """All names that ``pattern`` matches; None where they are many, or it is too intricate to say."""
    reader = _Reader(pattern)
    try:
        names = reader.alternatives(anchored=True)
    except _Intricate:
        return None
    return names if reader.at == len(pattern) else None


class _Intricate(Exception):
    pass


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self.at = 0

    def alternatives(self, *, anchored: bool = False) -> list[str]:
        found = self._sequence(anchored=anchored)
        while self._take("|"):
            found += self._sequence(anchored=anchored)
        return _few(found)

    def _sequence(self, *, anchored: bool) -> list[str]:
        if anchored and not self._take("^"):
            raise _Intricate
        words = [""]
        while self._next() not in ("", "|", ")", "$"):
            piece = self._repeated(self._atom())
            words = _few([word + more for word in words for more in piece])
        if anchored and not self._take("$"):
            raise _Intricate
        return words

    def _atom(self) -> list[str]:
        if self._take("("):
            self._take("?:")
            found = self.alternatives()
            self._expect(")")
            return found
        if self._take("["):
            return self._class()
        return [self._character()]

    def _class(self) -> list[str]:
        found: list[str] = []
        if self._next() in ("^", "]"):
            raise _Intricate
        while not self._take("]"):
            first = self._letter()
            last = first
            if self._next() == "-" and not self._pattern.startswith("-]", self.at):
                self.at += 1
                last = self._letter()
            if not 0 <= ord(last) - ord(first) < MOST:
                raise _Intricate
            found += [chr(code) for code in range(ord(first), ord(last) + 1)]
        return _few(found)

    def _letter(self) -> str:
        """A character of a class, where most have no meaning of their own."""
        if self._next() in ("", "[", "&", "~"):
            raise _Intricate
        if self._next() == "\\":
            return self._character()
        self.at += 1
        return self._pattern[self.at - 1]

    def _character(self) -> str:
        letter = self._next()
        self.at += 1
        if letter == "\\":
            letter = self._next()
            self.at += 1
            if letter == "" or letter.isalnum():
                raise _Intricate
            return letter
        if letter == "" or letter in SPECIAL:
            raise _Intricate
        return letter

    def _repeated(self, words: list[str]) -> list[str]:
        if self._take("?"):
            found = ["", *words]
        elif (counted := COUNTED.match(self._pattern, self.at)) is not None:
            self.at = counted.end()
            least = int(counted["least"])
            most = least if counted["most"] is None else int(counted["most"])
            found = _times(words, least, most)
        elif self._next() in ("*", "+", "{"):
            raise _Intricate
        else:
            return words
        if self._next() in ("?", "*", "+", "{"):
            raise _Intricate
        return found

    def _next(self) -> str:
        return self._pattern[self.at : self.at + 1]

    def _take(self, text: str) -> bool:
        taken = self._pattern.startswith(text, self.at)
        self.at += len(text) if taken else 0
        return taken

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise _Intricate


def _times(words: list[str], least: int, most: int) -> list[str]:
    if most > MOST:
        raise _Intricate
    found, made = [], [""]
    for count in range(most + 1):
        found += made if count >= least else []
        made = _few([word + more for word in made for more in words])
    return found


def _few(words: list[str]) -> list[str]:
    found = list(dict.fromkeys(words))
    if len(found) > MOST:
        raise _Intricate
    return found
