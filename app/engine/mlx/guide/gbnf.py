"""GBNF, llama.cpp's way to write a grammar, read into a tree.

Source of the syntax: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md. Rules may also run over
several lines, as in the EBNF of XGrammar: a rule ends where the next one's ``name ::=`` begins.
"""

from __future__ import annotations

import re

from app.engine.mlx.guide.gbnf_tree import Chars, Choice, Node, Reference, Repeat, Sequence

BEGINS = re.compile(r"^[ \t]*[A-Za-z0-9_-]+[ \t]*::=", re.MULTILINE)
SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
NAME = re.compile(r"[A-Za-z0-9_-]+")
HEAD = re.compile(rf"({NAME.pattern}){SPACE.pattern}::=")
COUNT = re.compile(r"\{[ \t\n]*(\d{0,6})[ \t\n]*(,?)[ \t\n]*(\d{0,6})[ \t\n]*\}")
ESCAPED = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
MEANING = {"n": "\n", "r": "\r", "t": "\t"} | {it: it for it in "\\\"'[]-^/."}
LAST = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)


def is_gbnf(text: str) -> bool:
    """Whether a grammar is GBNF and not Lark, which has no ``::=`` behind a name at a line's beginning."""
    return BEGINS.search(text) is not None


def parse(text: str) -> dict[str, Node]:
    """The rules by name; of two with the same name the last counts. Raises :class:`ValueError` for what is none.

    There is a rule ``root``, and every reference leads to one.
    """
    reader = _Reader(text)
    rules = reader.rules()
    if "root" not in rules:
        raise ValueError("there is no rule 'root', with which a GBNF grammar begins")
    for name in reader.named:
        if name not in rules:
            raise ValueError(f"there is no rule '{name[:64]}'")
    return rules


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = SPACE.match(text).end()  # type: ignore[union-attr]  # it matches nothing at least
        self.named: dict[str, None] = {}

    def rules(self) -> dict[str, Node]:
        found: dict[str, Node] = {}
        while self._at < len(self._text):
            head = HEAD.match(self._text, self._at)
            if head is None:
                raise self._wrong("a rule, name ::= ..., is expected")
            self._go(head.end())
            found[head[1]] = self._choice()
        return found

    def _choice(self) -> Node:
        options = [self._sequence()]
        while self._next("|"):
            options.append(self._sequence())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            if HEAD.match(self._text, self._at):
                break
            parts.append(self._repeated(self._item()))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _item(self) -> Node:
        if name := NAME.match(self._text, self._at):
            self._go(name.end())
            self.named[name[0]] = None
            return Reference(name[0])
        match self._text[self._at]:
            case '"':
                return self._literal()
            case "[":
                return self._class()
            case ".":
                self._go(self._at + 1)
                return Chars(((0, LAST),))
            case "(" if not self._text.startswith("(?", self._at):
                self._go(self._at + 1)
                inner = self._choice()
                if not self._next(")"):
                    raise self._wrong("a ')' is missing")
                return inner
        raise self._wrong('a text in "...", a class [...], a rule\'s name or a group (...) is expected')

    def _repeated(self, part: Node) -> Node:
        """``part`` with what stands behind it: any number of ``*``, ``+``, ``?`` and ``{m,n}``."""
        while True:
            if self._next("*"):
                part = Repeat(part, 0, None)
            elif self._next("+"):
                part = Repeat(part, 1, None)
            elif self._next("?"):
                part = Repeat(part, 0, 1)
            elif count := COUNT.match(self._text, self._at):
                least, comma, most = count.groups()
                if not least and not most:
                    raise self._wrong("{m}, {m,} or {m,n} is expected")
                low = int(least or 0)
                high = None if comma and not most else int(most or low)
                if high is not None and high < low:
                    raise self._wrong(f"{count[0]} ends before it begins")
                self._go(count.end())
                part = Sequence(()) if high == 0 else Repeat(part, low, high)
            else:
                return part

    def _literal(self) -> Node:
        self._at += 1
        characters: list[Node] = []
        while not self._text.startswith('"', self._at):
            point = self._character()
            characters.append(Chars(((point, point),)))
        self._go(self._at + 1)
        return characters[0] if len(characters) == 1 else Sequence(tuple(characters))

    def _class(self) -> Chars:
        self._at += 1
        negated = self._text.startswith("^", self._at)
        self._at += negated
        ranges: list[tuple[int, int]] = []
        while not self._text.startswith("]", self._at):
            low = high = self._character()
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                high = self._character()
            if high < low:
                raise self._wrong("a range of a class ends before it begins")
            ranges.append((low, high))
        self._go(self._at + 1)
        taken = _apart(ranges)
        if negated:
            taken = _others(taken)
        if not taken:
            raise self._wrong("a class has no characters")
        return Chars(taken)

    def _character(self) -> int:
        """The next character of a text or class, as its code point."""
        if self._at >= len(self._text):
            raise self._wrong("a text or a class has no end")
        if self._text[self._at] != "\\":
            self._at += 1
            return ord(self._text[self._at - 1])
        escaped = ESCAPED.match(self._text, self._at)
        digits = escaped and (escaped[1] or escaped[2] or escaped[3])
        if escaped is None or (not digits and escaped[4] not in MEANING):
            raise self._wrong("there is no such escape")
        point = int(digits, 16) if digits else ord(MEANING[escaped[4]])
        if point > LAST or SURROGATES[0] <= point <= SURROGATES[1]:
            raise self._wrong("there is no such character")
        self._at = escaped.end()
        return point

    def _next(self, wanted: str) -> bool:
        if not self._text.startswith(wanted, self._at):
            return False
        self._go(self._at + len(wanted))
        return True

    def _go(self, at: int) -> None:
        """Go on behind ``at`` and the space there."""
        space = SPACE.match(self._text, at)
        self._at = at if space is None else space.end()

    def _wrong(self, what: str) -> ValueError:
        line = self._text.count("\n", 0, self._at) + 1
        return ValueError(f"{what} in line {line}, at '{self._text[self._at : self._at + 16].strip()}'")


def _apart(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same characters in sorted ranges that neither meet nor touch."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)


def _others(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """All characters but those."""
    starts = [0, *(high + 1 for _, high in ranges)]
    ends = [*(low - 1 for low, _ in ranges), LAST]
    return tuple((low, high) for low, high in zip(starts, ends, strict=True) if low <= high)
