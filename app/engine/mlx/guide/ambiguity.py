"""Where in a grammar the next character does not tell which place it is for.

The grammar's LR(0) automaton is built over its places (occurrences of characters). A place is unclear if in some state
another one is awaited that shares a character, or if what is complete there may be followed by such a one (as SLR
parsers see it, by what can follow a rule anywhere). Two readings that part in this way are followed further, by the
places that can come after one another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from app.engine.mlx.guide.gbnf_tree import Chars, Choice, Node, Reference, Repeat, Sequence, chars

COUNTED = 64
"""Symbols that a repeat may be written out as."""
STATES = 3000
PAIRS = 500_000
"""States, and pairs of places, that are looked at; a larger grammar is taken to be clear."""

Item = tuple[int, int]
"""A production's number, and how many of its symbols have been read."""


class Productions:
    """Rules without repeats and options. Symbols from 0 on are places, those below are names. Sets are bits."""

    def __init__(self, rules: dict[str, Node]) -> None:
        self.places = [it for node in rules.values() for it in chars(node)]
        self.bodies: list[tuple[int, tuple[int, ...]]] = []
        self.of: dict[int, list[int]] = {}
        self._number = {id(it): at for at, it in enumerate(self.places)}
        self._names = {name: -1 - at for at, name in enumerate(rules)}
        self._next = -1 - len(rules)
        for name, node in rules.items():
            self._add(self._names[name], self._symbols(node))
        self.start = self._names["root"]
        self.empty: set[int] = set()
        self.first: dict[int, int] = dict.fromkeys(self.of, 0) | {at: 1 << at for at in range(len(self.places))}
        self.after: dict[int, int] = dict.fromkeys(self.first, 0)
        self._settle()

    def _add(self, name: int, body: tuple[int, ...]) -> int:
        self.of.setdefault(name, []).append(len(self.bodies))
        self.bodies.append((name, body))
        return name

    def _new(self) -> int:
        self._next -= 1
        return self._next

    def _symbols(self, node: Node) -> tuple[int, ...]:
        match node:
            case Chars():
                return (self._number[id(node)],)
            case Reference(name):
                return (self._names[name],)
            case Sequence(parts):
                return tuple(symbol for part in parts for symbol in self._symbols(part))
            case Choice(options):
                made = self._new()
                for option in options:
                    self._add(made, self._symbols(option))
                return (made,)
            case Repeat(part, least, most):
                return self._repeated(self._symbols(part), least, most)

    def _repeated(self, body: tuple[int, ...], least: int, most: int | None) -> tuple[int, ...]:
        """So many of ``body``; large numbers are taken for any number."""
        if (least if most is None else most) * len(body) > COUNTED:
            least, most = min(least, 1), None
        required = body * least
        if most is None:
            name = self._new()
            self._add(name, ())
            return (*required, self._add(name, (name, *body)))
        rest: tuple[int, ...] = ()
        for _ in range(most - least):
            name = self._new()
            self._add(name, ())
            rest = (self._add(name, (*body, *rest)),)
        return required + rest

    def _settle(self) -> None:
        """What is empty, begins each symbol, and what can come after it, until nothing changes."""
        changed = True
        while changed:
            changed = False
            for name, body in self.bodies:
                first = self.first[name] | self._beginning(body)
                empty = name in self.empty or self.empty.issuperset(body)
                if first != self.first[name] or empty != (name in self.empty):
                    changed, self.first[name] = True, first
                    self.empty |= {name} if empty else set()
        changed = True
        while changed:
            changed = False
            for name, body in self.bodies:
                coming = self.after[name]
                for symbol in reversed(body):
                    if coming & ~self.after[symbol]:
                        self.after[symbol] |= coming
                        changed = True
                    coming = self.first[symbol] | (coming if symbol in self.empty else 0)

    def _beginning(self, body: Iterable[int]) -> int:
        """The places that can come first of these symbols."""
        first = 0
        for symbol in body:
            first |= self.first[symbol]
            if symbol not in self.empty:
                break
        return first


class Ambiguity:
    """Finds the unclear places of a grammar."""

    def __init__(self, rules: dict[str, Node]) -> None:
        self._made = Productions(rules)
        self._atoms = _atoms(self._made.places)
        self._unclear = 0
        self._parted: set[tuple[int, int]] = set()
        self._waiting: deque[tuple[int, int]] = deque()
        self._looked_at = 0

    def unclear(self) -> set[int]:
        """The ids of the unclear places; none if there is too much to look at."""
        if not self._walk() or not self._follow():
            return set()
        return {id(self._made.places[at]) for at in _ones(self._unclear)}

    def _walk(self) -> bool:
        """Every state of the automaton."""
        begin = frozenset((number, 0) for number in self._made.of[self._made.start])
        seen, waiting = {begin}, [begin]
        while waiting:
            for state in self._moves(self._closure(waiting.pop())):
                if state not in seen:
                    seen.add(state)
                    waiting.append(state)
            if len(seen) > STATES or self._looked_at > PAIRS:
                return False
        return True

    def _closure(self, kernel: frozenset[Item]) -> list[Item]:
        items, entered = list(kernel), set[int]()
        for number, read in items:
            body = self._made.bodies[number][1]
            if read < len(body) and body[read] < 0 and body[read] not in entered:
                entered.add(body[read])
                items += [(inner, 0) for inner in self._made.of[body[read]]]
        return items

    def _moves(self, items: list[Item]) -> Iterator[frozenset[Item]]:
        """The states after this one; what is unclear in it is noted."""
        awaited: dict[int, list[Item]] = {}
        complete: list[int] = []
        for number, read in items:
            name, body = self._made.bodies[number]
            if read == len(body):
                complete.append(self._made.after[name])
            else:
                awaited.setdefault(body[read], []).append((number, read + 1))
        self._looked_at += len(items)
        shifts = [symbol for symbol in awaited if symbol >= 0]
        self._unclear |= _union(1 << symbol for symbol in shifts if len(awaited[symbol]) > 1)
        self._judge(shifts, complete)
        yield from (frozenset(moved) for symbol, moved in awaited.items() if symbol < 0)
        together: dict[int, list[int]] = {}
        for symbol in shifts:
            for atom in _ones(self._atoms[symbol]):
                together.setdefault(atom, []).append(symbol)
        for symbols in {tuple(it) for it in together.values()}:
            yield frozenset(item for symbol in symbols for item in awaited[symbol])

    def _judge(self, shifts: list[int], complete: list[int]) -> None:
        self._looked_at += len(shifts) * len(shifts) // 2
        if self._looked_at > PAIRS:
            return
        for at, one in enumerate(shifts):
            for other in shifts[at + 1 :]:
                if self._atoms[one] & self._atoms[other]:
                    self._unclear |= 1 << one | 1 << other
        for at, after in enumerate(complete):
            for one in shifts:
                self._part(1 << one, after)
            for other in complete[at + 1 :]:  # what can follow both is taken to be the same for both
                self._part(after & ~other, other)
                self._part(other & ~after, after)

    def _part(self, some: int, others: int) -> None:
        """Readings that go on with one of ``some`` and with one of ``others``, where a character may be for both."""
        self._looked_at += some.bit_count() * others.bit_count()
        if self._looked_at > PAIRS:
            return
        for one in _ones(some):
            for other in _ones(others):
                pair = (min(one, other), max(one, other))
                if self._atoms[one] & self._atoms[other] and pair not in self._parted:
                    self._parted.add(pair)
                    self._waiting.append(pair)
                    self._unclear |= 1 << one | 1 << other

    def _follow(self) -> bool:
        while self._waiting:
            one, other = self._waiting.popleft()
            self._part(self._made.after[one], self._made.after[other])
        return self._looked_at <= PAIRS


def _atoms(places: list[Chars]) -> list[int]:
    """The characters of each place as bits: one for each piece into which the edges of all ranges cut Unicode."""
    edges = sorted({edge for place in places for low, high in place.ranges for edge in (low, high + 1)})
    number = {edge: at for at, edge in enumerate(edges)}
    return [_union((1 << number[high + 1]) - (1 << number[low]) for low, high in it.ranges) for it in places]


def _union(sets: Iterable[int]) -> int:
    union = 0
    for it in sets:
        union |= it
    return union


def _ones(bits: int) -> Iterator[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low
