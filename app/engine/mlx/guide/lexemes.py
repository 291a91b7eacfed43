"""A GBNF grammar as llguidance's Lark, the same language and fast.

llguidance cuts a text into lexemes, each as long as it can be, and parses those. GBNF knows characters alone: written
with a lexeme for each character every grammar means the same, but a step's mask then takes milliseconds; written with
long ones it is fast, but a text is lost where a lexeme takes what should have been left to the next one. So parts
without recursion become one lexeme each where the next character always tells which place of the grammar it is for,
and stay single characters elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.engine.mlx.guide.ambiguity import Ambiguity
from app.engine.mlx.guide.gbnf import parse
from app.engine.mlx.guide.gbnf_tree import Chars, Choice, Node, Reference, Repeat, Sequence, chars, references, refers

INLINED = 512
"""Places of a rule that is written out where it is referred to."""
LOOKED_AT = 5000
"""Places of a grammar whose ambiguity is looked at; a larger one is taken to be clear."""
DEEP = 30
"""Rules that may be written out within one another."""
PLACES = 20_000
"""Places of a grammar; above, rules are no longer written out."""


def lark(text: str) -> str:
    """``text``, which is GBNF, in Lark. Raises :class:`ValueError` for what is no grammar."""
    rules = _Expansion(parse(text)).rules
    if not refers(rules["root"]):
        return f"start: /{_regex(rules['root'])}/\n"
    names = {name: f"r{number}" for number, name in enumerate(rules)}
    places = sum(1 for node in rules.values() for _ in chars(node))
    writer = _Writer(names, Ambiguity(rules).unclear() if places <= LOOKED_AT else set())
    lines = [f"{names[name]}: {writer.write(node)}" for name, node in rules.items()]
    return "\n".join([f"start: {names['root']}", *lines, ""])


class _Expansion:
    """The rules that are left when those without recursion are written out where they are referred to."""

    def __init__(self, parsed: dict[str, Node]) -> None:
        self._parsed = parsed
        self._sizes: dict[str, int | None] = {}
        self._places = self._depth = 0
        self.rules: dict[str, Node] = {}
        waiting = ["root"]
        while waiting:
            name = waiting.pop()
            if name not in self.rules:
                self.rules[name] = node = self._copy(parsed[name])
                waiting += references(node)

    def _copy(self, node: Node) -> Node:
        match node:
            case Chars(ranges):
                self._places += 1
                return Chars(ranges)
            case Sequence(parts):
                return Sequence(tuple(self._copy(part) for part in parts))
            case Choice(options):
                return Choice(tuple(self._copy(option) for option in options))
            case Repeat(part, least, most):
                return Repeat(self._copy(part), least, most)
            case Reference(name):
                size = self._size(name)
                if size is None or size > INLINED or self._places + size > PLACES:
                    return node
                return self._copy(self._parsed[name])

    def _size(self, name: str) -> int | None:
        """Places of a rule when all is written out; None where it refers to itself, or to others too deeply."""
        if name not in self._sizes:
            self._sizes[name] = None  # what comes back here is recursive
            self._depth += 1
            self._sizes[name] = self._measure(self._parsed[name]) if self._depth < DEEP else None
            self._depth -= 1
        return self._sizes[name]

    def _measure(self, node: Node) -> int | None:
        match node:
            case Chars():
                return 1
            case Reference(name):
                return self._size(name)
            case Repeat(part):
                return self._measure(part)
            case Sequence(parts) | Choice(parts):
                sizes = [self._measure(part) for part in parts]
                return None if None in sizes else sum(size or 0 for size in sizes)


class _Writer:
    """Rules in Lark; ``unclear`` are the ids of places that must stay lexemes of their own."""

    def __init__(self, names: dict[str, str], unclear: set[int]) -> None:
        self._names = names
        self._unclear = unclear

    def write(self, node: Node) -> str:
        """An expression that may stand anywhere."""
        if self._whole(node):
            return _lexeme(node)
        match node:
            case Chars():
                return f"/{_regex(node)}/"
            case Reference(name):
                return self._names[name]
            case Repeat(part, least, most):
                return f"({self.write(part)}){_count(least, most)}"
            case Choice(options):
                return f"({' | '.join(self.write(option) for option in options)})"
            case Sequence(parts):
                return f"({' '.join(self._runs(parts))})"

    def _runs(self, parts: tuple[Node, ...]) -> Iterator[str]:
        """The parts, of which neighbours that can be lexemes make one."""
        run: list[Node] = []
        for part in parts:
            if self._whole(part):
                run.append(part)
                continue
            if run:
                yield _lexeme(Sequence(tuple(run)))
                run = []
            yield self.write(part)
        if run:
            yield _lexeme(Sequence(tuple(run)))

    def _whole(self, node: Node) -> bool:
        return not refers(node) and all(id(it) not in self._unclear for it in chars(node))


def _lexeme(node: Node) -> str:
    """One lexeme, or nothing where the node may be empty: no lexeme is."""
    if not any(True for _ in chars(node)):
        return '""'
    return f"/{_regex(node)}/{'?' if _nullable(node) else ''}"


def _nullable(node: Node) -> bool:
    match node:
        case Repeat(part, least, _):
            return least == 0 or _nullable(part)
        case Choice(options):
            return any(_nullable(option) for option in options)
        case Sequence(parts):
            return all(_nullable(part) for part in parts)
        case _:
            return False


def _regex(node: Node) -> str:
    """A regular expression in Rust's syntax, for a node without references."""
    match node:
        case Chars(ranges):
            return "[" + "".join(rf"\x{{{low:X}}}-\x{{{high:X}}}" for low, high in ranges) + "]"
        case Repeat(part, least, most):
            return f"(?:{_regex(part)}){_count(least, most)}"
        case Choice(options):
            return f"(?:{'|'.join(_regex(option) for option in options)})"
        case Sequence(parts):
            return "".join(_regex(part) for part in parts)
        case Reference(name):
            raise ValueError(name)


def _count(least: int, most: int | None) -> str:
    return {(0, None): "*", (1, None): "+", (0, 1): "?"}.get(
        (least, most), f"{{{least},{'' if most is None else most}}}"
    )
