"""Token ids that begin alike, as a tree: what several sequences have in common at their beginnings is there once.

Ids are packed, four bytes each, so that comparing them is comparing bytes. Siblings differ in their first token, so
finding the longest known beginning looks at one child a node, however many sequences there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from app.engine.ids import WIDTH, common
from app.engine.mlx.cache.kv import KV

PIECE = 256
"""Most tokens of a node, so that the least recently used end of a long sequence can be let go of by itself."""


def names(root: bytes, packed: bytes, step: int = PIECE) -> Iterator[bytes]:
    """The name of each whole number of ``step`` tokens at the beginning of ``packed``.

    It is a digest of all tokens up to there and of ``root``, which says what computed them; ids are compared all the
    same wherever a name is believed.
    """
    chain = hashlib.blake2b(root, digest_size=16)
    for end in range(step * WIDTH, len(packed) + 1, step * WIDTH):
        chain.update(packed[end - step * WIDTH : end])
        yield chain.copy().digest()


class Checkpoint:
    """What the layers that cannot be cut held at a position, behind so many tokens counted from the root.

    ``states`` are as :meth:`app.engine.mlx.cache.kv.KV.states` makes them.
    """

    __slots__ = ("node", "position", "states")

    def __init__(self, node: Node, position: int, states: KV) -> None:
        self.node = node
        self.position = position
        self.states = states


class Node:
    """Some tokens in one place of the tree, with their keys and values, and with checkpoints among them.

    ``start`` is how many tokens stand before them, ``held`` is as :meth:`app.engine.mlx.cache.kv.KV.cut` makes it. A
    checkpoint lies in the node of the token that it stands behind.
    """

    __slots__ = ("children", "held", "ids", "parent", "start", "states")

    def __init__(self, parent: Node | None, start: int, ids: bytes, held: KV | None) -> None:
        self.parent = parent
        self.start = start
        self.ids = ids
        self.held = held
        self.children: dict[bytes, Node] = {}
        self.states: dict[int, Checkpoint] = {}

    @property
    def end(self) -> int:
        """How many tokens there are with these."""
        return self.start + len(self.ids) // WIDTH

    @property
    def path(self) -> list[Node]:
        """The nodes from the first below the root to this one."""
        node, found = self, []
        while node.parent is not None:
            found.append(node)
            node = node.parent
        return found[::-1]


class Match(NamedTuple):
    """The longest known beginning of something: ``nodes``, of the last of which perhaps not all tokens belong to it."""

    nodes: list[Node]
    tokens: int


class Tree:
    """MLX thread only."""

    def __init__(self) -> None:
        self.root = Node(None, 0, b"", None)

    def match(self, packed: bytes) -> Match:
        """The longest known beginning."""
        node, at, nodes = self.root, 0, []
        while (child := node.children.get(packed[at : at + WIDTH])) is not None:
            nodes.append(child)
            if not packed.startswith(child.ids, at):
                at += WIDTH * common(child.ids, packed[at : at + len(child.ids)])
                break
            node, at = child, at + len(child.ids)
        return Match(nodes, at // WIDTH)

    def nearest(self, packed: bytes) -> tuple[int, int]:
        """How much of something is known, and how many tokens stand behind that, to the end that was added last."""
        match = self.match(packed)
        node = match.nodes[-1] if match.nodes else self.root
        while node.children:
            node = next(reversed(node.children.values()))
        return match.tokens, node.end - match.tokens

    def add(self, parent: Node, ids: bytes, held: KV) -> Node:
        """A new node; nothing that ``parent`` has begins with its first token."""
        node = Node(parent, parent.end, ids, held)
        parent.children[ids[:WIDTH]] = node
        return node

    def split(self, node: Node, position: int) -> Node:
        """Have ``node`` begin at ``position``, which lies among its tokens; the new node with those before it."""
        if node.parent is None or node.held is None:
            raise ValueError("The root has no tokens.")
        cut, size = position - node.start, node.end - node.start
        upper = Node(node.parent, node.start, node.ids[: cut * WIDTH], node.held.part(0, cut))
        node.parent.children[node.ids[:WIDTH]] = upper
        node.ids, node.held = node.ids[cut * WIDTH :], node.held.part(cut, size)
        node.parent, node.start = upper, position
        upper.children[node.ids[:WIDTH]] = node
        upper.states = {at: it for at, it in node.states.items() if at <= position}
        node.states = {at: it for at, it in node.states.items() if at > position}
        for checkpoint in upper.states.values():
            checkpoint.node = upper
        return upper

    def remove(self, node: Node) -> None:
        """A node that has no children."""
        if node.parent is not None:
            del node.parent.children[node.ids[:WIDTH]]
            node.parent = None
