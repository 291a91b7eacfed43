"""Grammar rules for values that are written without quotes."""

import re

from app.generation.tools.rules import Rules, embedded, slashed
from app.generation.tools.toolbox import Schema, Tool, resolved, types

ANYTHING = r"(?s:.*)"


def text_rule(rules: Rules, schema: Schema, tool: Tool, end: str) -> str:
    """A value of ``schema`` and the ``end`` behind it: texts as they are, anything else as JSON."""
    kinds = types(schema, tool.parameters)
    if "string" not in kinds:
        value = rules.json(embedded(schema, tool.parameters), strict=tool.strict)
        return rules.rule(f"{value} {rules.text(end)}")
    if kinds != {"string"}:
        return rules.raw(end)
    schema = resolved(schema, tool.parameters)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        return rules.rule(" | ".join(rules.text(str(value) + end) for value in values))
    return rules.raw(end, _pattern(schema))


def _pattern(schema: Schema) -> str:
    """A regular expression for the whole text, out of one that JSON Schema looks for anywhere in it."""
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        begins, ends = pattern.startswith("^"), re.search(r"(?<!\\)(\\\\)*\$$", pattern) is not None
        inner = slashed(pattern[1 if begins else 0 : -1 if ends else None])
        return f"{'' if begins else ANYTHING}({inner}){'' if ends else ANYTHING}"
    least, most = schema.get("minLength", 0), schema.get("maxLength", "")
    if least or most != "":
        return f"(?s:.{{{least},{most}}})"
    return ANYTHING
