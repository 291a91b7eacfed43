"""A grammar as llguidance takes it."""

from __future__ import annotations

import json
from typing import Any

from llguidance import LLMatcher, regex_to_lark

from app.engine.grammar import Grammar
from app.engine.mlx.guide.gbnf import is_gbnf
from app.engine.mlx.guide.lexemes import lark
from app.errors import InvalidRequest

WHITESPACE = r"[ \t]{1,2}|\r?\n[ \t]{0,24}"
"""What may stand between JSON's tokens: a space, or one indented line; nothing to get lost in."""
ASCII_DIGITS = "d"
r"""``\d`` in a regular expression means 0 to 9, as in JSON Schema."""
LARGEST = 256 * 1024
"""Characters of a grammar."""


def spelt(grammar: Grammar) -> str:
    """What ``LLMatcher`` is made of. Raises :class:`app.errors.InvalidRequest` for what is larger than is taken."""
    if len(grammar.source) > LARGEST:
        raise InvalidRequest(
            f"{grammar.param} has {len(grammar.source)} characters; at most {LARGEST} are taken.",
            param=grammar.param,
            code="grammar_too_large",
        )
    try:
        return _spelt(grammar)
    except RecursionError:
        raise InvalidRequest(
            f"{grammar.param} is nested too deeply.", param=grammar.param, code="grammar_too_large"
        ) from None


def _spelt(grammar: Grammar) -> str:
    match grammar.kind:
        case "json_object":
            rule: str = _schema({"type": "object"})
        case "json_schema":
            rule = _schema(json.loads(grammar.source))
        case "regex":
            rule = LLMatcher.grammar_from_lark(f"start: /{regex_to_lark(grammar.source, ASCII_DIGITS)}/")
        case "choice":
            texts = json.loads(grammar.source)
            rule = LLMatcher.grammar_from_lark("start: " + " | ".join(json.dumps(t, ensure_ascii=False) for t in texts))
        case "lark":
            rule = LLMatcher.grammar_from_lark(lark(grammar.source) if is_gbnf(grammar.source) else grammar.source)
    return rule


def _schema(schema: Any) -> str:
    """``x-guidance`` is llguidance's own way to be told options in a schema; a client's are not taken."""
    if isinstance(schema, dict):
        schema.pop("x-guidance", None)
    options: Any = {"whitespace_pattern": WHITESPACE}
    rule: str = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)
    return rule
