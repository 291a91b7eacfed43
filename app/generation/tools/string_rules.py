"""Grammar rules for values that are written without quotes."""

import json

from app.generation.schema.keywords import AnySchema, Schema
from app.generation.schema.members import joined, plain, says_nothing, type_of, types
from app.generation.tools.expressions import ANYTHING, searched
from app.generation.tools.rules import Rules
from app.generation.tools.toolbox import Tool

DEPTH = 6
"""Alternatives inside each other that are told apart; a text further inside is free."""
LENGTHS = ("minLength", "maxLength")


def text_rule(rules: Rules, schema: AnySchema, tool: Tool, end: str, depth: int = DEPTH) -> str:
    """A value of ``schema`` and the ``end`` behind it: texts as they are, anything else as JSON."""
    kinds = types(schema, tool.parameters)
    if "string" not in kinds and not (not kinds and says_nothing(schema)):
        return rules.rule(f"{rules.part(schema, tool)} {rules.text(end)}")
    flat = plain(schema, tool.parameters)
    values = [flat["const"]] if "const" in flat else flat.get("enum")
    if isinstance(values, list):
        spelt = [_spelt(value) for value in values if not kinds or type_of(value) in kinds]
        choices = [rules.text(text + end) for text in spelt if end.strip() not in text]  # others cannot be told apart
        return rules.rule(" | ".join(choices)) if choices else rules.part(False, tool)
    for key in ("anyOf", "oneOf"):
        if key in flat and depth:
            rest: Schema = {name: value for name, value in flat.items() if name != key}
            branches = [joined(rest, branch) for branch in flat[key]]
            choices = [text_rule(rules, it, tool, end, depth - 1) for it in branches if it is not False]
            return rules.one_of(choices or [rules.part(False, tool)])
    others = sorted(kinds - {"string"})
    texts = [rules.raw(end, _patterns(flat))]
    if others and _patterns(flat) != (ANYTHING,):
        rest = {key: value for key, value in flat.items() if key != "patterns"} | {"type": others}
        texts.append(rules.rule(f"{rules.part(rest, tool)} {rules.text(end)}"))
    return rules.one_of(texts)


def _spelt(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _patterns(schema: Schema) -> tuple[str, ...]:
    """Regular expressions for the whole text."""
    found = [searched(pattern) for pattern in schema.get("patterns", ())]
    if any(key in schema for key in LENGTHS):
        least, most = schema.get("minLength", 0), schema.get("maxLength", "")
        found.append(f"(?s:.{{{least},{most}}})")
    return tuple(found) or (ANYTHING,)
