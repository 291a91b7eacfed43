"""A GBNF grammar as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from msgspec import Struct


class Chars(Struct, eq=False):
    """One character out of ``ranges`` of code points: sorted, apart, both ends within. Each is one place of a text."""

    ranges: tuple[tuple[int, int], ...]


class Reference(Struct, eq=False):
    """What the rule of that name says."""

    name: str


class Sequence(Struct, eq=False):
    """One after the other; nothing at all if there are no parts."""

    parts: tuple[Node, ...]


class Choice(Struct, eq=False):
    """One of them."""

    options: tuple[Node, ...]


class Repeat(Struct, eq=False):
    """``part``, as often as that; ``most`` None is without end."""

    part: Node
    least: int
    most: int | None


Node: TypeAlias = Chars | Reference | Sequence | Choice | Repeat


def children(node: Node) -> tuple[Node, ...]:
    """What a node is made of."""
    match node:
        case Sequence(parts) | Choice(parts):
            return parts
        case Repeat(part):
            return (part,)
        case _:
            return ()


def chars(node: Node) -> Iterator[Chars]:
    """The places of a node, from left to right."""
    if isinstance(node, Chars):
        yield node
    for child in children(node):
        yield from chars(child)


def references(node: Node) -> list[str]:
    """The rules that a node refers to."""
    if isinstance(node, Reference):
        return [node.name]
    return [name for child in children(node) for name in references(child)]


def refers(node: Node) -> bool:
    """Whether a node refers to any rule."""
    return isinstance(node, Reference) or any(refers(child) for child in children(node))
