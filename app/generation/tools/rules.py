"""Grammars in llguidance's variant of Lark, put together from pieces."""

import json
import re
from collections.abc import Callable, Sequence

import msgspec

from app.generation.tools.toolbox import Schema, Tool

MARKER = re.compile(r"<[^<>\s]{1,64}>|\[[A-Z_]{1,32}\]")
"""What may be a token of its own."""
WHITESPACE = r"[ \t\n\r]{1,48}"


class Rules:
    """Rules of one grammar.

    ``added_id`` tells the id of a text that is one added token: such texts are named by their id, because no ordinary
    text of a grammar means them. Where not ``parallel``, nothing is :meth:`repeated`.
    """

    def __init__(self, added_id: Callable[[str], int | None], *, parallel: bool) -> None:
        self._added_id = added_id
        self._parallel = parallel
        self._rules: list[str] = []

    def has(self, mark: str) -> bool:
        """Whether the tokenizer has a token for ``mark``."""
        return self._added_id(mark) is not None

    def text(self, literal: str) -> str:
        """``literal``, spelt."""
        pieces: list[str] = []
        at = 0
        for found in MARKER.finditer(literal):
            token = self._added_id(found.group())
            if token is not None:
                pieces += [quoted(literal[at : found.start()]), f"<[{token}]>"]
                at = found.end()
        pieces.append(quoted(literal[at:]))
        return " ".join(piece for piece in pieces if piece) or '""'

    def json(self, schema: Schema, *, strict: bool) -> str:
        """A JSON value of ``schema``."""
        options = {"whitespace_pattern": WHITESPACE} | ({} if strict else {"lenient": True})
        return self.rule("%json " + json.dumps(schema | {"x-guidance": options}))

    def arguments(self, tool: Tool) -> str:
        """The parameters of a call as one JSON object."""
        return self.json(tool.enforced, strict=tool.strict)

    def raw(self, end: str, pattern: str = r"(?s:.*)") -> str:
        """Text of ``pattern`` up to and with the first ``end``."""
        if self._added_id(end.strip()) is None:
            return self._define(f"{{name}}[suffix={quoted(end)}]: /{pattern}/")
        other = f"(?s:.*){slashed(re.escape(end.strip()))}(?s:.*)"
        return self.rule(f"{self._define('{NAME}: /' + pattern + '/ & ~/' + other + '/')} {self.text(end)}")

    def members(self, members: Sequence[tuple[str, bool]], separator: str) -> str:
        """Rules in their order with ``separator`` between them; of each, whether it may not be left out."""
        later, first = '""', '""'
        for body, required in reversed(members):
            begun = self.rule(f"{separator} {body} {later}" + ("" if required else f" | {later}"))
            first = self.rule(f"{body} {later}" + ("" if required else f" | {first}"))
            later = begun
        return first

    def one_of(self, alternatives: Sequence[str]) -> str:
        """One of several."""
        return alternatives[0] if len(alternatives) == 1 else self.rule(" | ".join(alternatives))

    def repeated(self, item: str, separator: str) -> str:
        """As many as the model likes, one at least; just one where calls are not parallel."""
        return self.rule(f"{item} ({separator} {item})*" if self._parallel else item)

    def rule(self, body: str) -> str:
        """A rule of its own; its name."""
        return self._define("{name}: " + body)

    def reserve(self) -> str:
        """A name for a rule that is defined later."""
        self._rules.append("")
        return f"r{len(self._rules) - 1}"

    def define(self, name: str, body: str) -> None:
        """The rule of a reserved name."""
        self._rules[int(name[1:])] = f"{name}: {body}"

    def grammar(self, start: str) -> str:
        """All rules, beginning with ``start``."""
        return "\n".join([f"start: {start}", *self._rules])

    def _define(self, rule: str) -> str:
        number = len(self._rules)
        upper = "{NAME}" in rule
        name = f"T{number}" if upper else f"r{number}"
        self._rules.append(rule.replace("{NAME}" if upper else "{name}", name, 1))
        return name


def quoted(text: str) -> str:
    """A string of the grammar; nothing for no text."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def slashed(pattern: str) -> str:
    """A regular expression as it stands between slashes."""
    return re.sub(r"(\\.)|/", lambda found: found.group(1) or r"\/", pattern, flags=re.DOTALL)


def embedded(schema: Schema, root: Schema) -> Schema:
    """A part of ``root`` that stands alone: what its references mean comes along."""
    return {key: root[key] for key in ("$defs", "definitions") if key in root} | schema


def spelt(value: object) -> str:
    """A value as compact JSON."""
    return msgspec.json.encode(value).decode()
