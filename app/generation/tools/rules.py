"""Grammars in llguidance's variant of Lark, put together from pieces."""

import json
import re
from collections.abc import Callable, Sequence

import msgspec

from app.errors import InvalidRequest
from app.generation.schema.keywords import AnySchema, Schema
from app.generation.schema.references import within
from app.generation.tools.toolbox import Tool

MARKER = re.compile(r"<[^<>\s]{1,64}>|\[[A-Z_]{1,32}\]")
"""What may be a token of its own."""
MOST = 10_000
"""Rules of one grammar."""
WHITESPACE = r"[ \t]{1,2}|\r?\n[ \t]{0,24}"
"""What may stand between JSON's tokens: a space, or one indented line; nothing to get lost in."""


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

    def json(self, schema: AnySchema, *, strict: bool) -> str:
        """A JSON value of ``schema``."""
        stated: Schema = ({} if schema else {"enum": []}) if isinstance(schema, bool) else schema
        options = {"whitespace_pattern": WHITESPACE} | ({} if strict else {"lenient": True})
        return self.rule("%json " + json.dumps({**stated, "x-guidance": options}))

    def part(self, schema: AnySchema, tool: Tool) -> str:
        """A JSON value of ``schema``, which is a part of the function's parameters."""
        return self.json(within(schema, tool.parameters), strict=tool.strict)

    def arguments(self, tool: Tool) -> str:
        """The parameters of a call as one JSON object."""
        return self.json(tool.parameters, strict=tool.strict)

    def raw(self, end: str, patterns: Sequence[str] = (r"(?s:.*)",)) -> str:
        """Text of all ``patterns`` up to and with the first ``end``."""
        text = " & ".join(f"/{pattern}/" for pattern in patterns)
        if self._added_id(end.strip()) is None:
            return self._define(f"{{name}}[suffix={quoted(end)}]: {self.token(text)}")
        other = f"(?s:.*){slashed(re.escape(end.strip()))}(?s:.*)"
        return self.rule(f"{self.token(f'{text} & ~/{other}/')} {self.text(end)}")

    def token(self, body: str) -> str:
        """A regular expression, or several put together, with a name."""
        return self._define("{NAME}: " + body)

    def members(self, members: Sequence[tuple[str, bool]], separator: str, more: str = "") -> str:
        """Rules in their order with ``separator`` between them; of each, whether it may not be left out.

        After all, ``more`` may stand as often as the model likes.
        """
        later = self.rule(f"({separator} {more})*") if more else '""'
        first = self.rule(f"({more} {later})?") if more else '""'
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
        if number >= MOST:
            raise InvalidRequest("The functions are too large for a grammar.", param="tools", code="grammar_too_large")
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


def spelt(value: object) -> str:
    """A value as compact JSON."""
    return msgspec.json.encode(value).decode()
