"""The grammar of an answer that may hold tool calls."""

import json
from collections.abc import Callable

from app.engine.grammar import Grammar
from app.errors import InvalidRequest
from app.generation.job import ToolUse
from app.generation.tools.format import Format
from app.generation.tools.rules import Rules, quoted, slashed
from app.generation.tools.toolbox import Toolbox

FREE = r"/([^{\s](?s:.*))?/"
"""Text that does not begin like a JSON object."""


def grammar(
    format: Format,  # noqa: A002
    use: ToolUse,
    answer: Grammar | None,
    added_id: Callable[[str], int | None],
) -> Grammar:
    """What holds the answer: forced calls, calls that are free to begin, or calls beside another answer's grammar."""
    rules = Rules(added_id, parallel=use.parallel)
    forced = use.required or use.named is not None
    called = tuple(tool for tool in use.tools if use.named in (None, tool.name))
    section = format.write(rules, Toolbox(called))
    start = format.section.start
    if not forced and answer is None and start:
        return Grammar("lark", rules.grammar(section), trigger=start, once=not use.parallel, param="tools")
    if start:
        sections = rules.rule(f"{rules.text(start)} {section}")
        section = rules.repeated(sections, '"\\n"?')
    if forced:
        return Grammar("lark", rules.grammar(section), param="tools")
    other = FREE if answer is None else _answer(rules, answer)
    return Grammar("lark", rules.grammar(f"{section} | {other}"), param="tools" if answer is None else answer.param)


def optional(use: ToolUse) -> bool:
    """Whether the functions may be called without being held to their schemas."""
    return not use.required and use.named is None and not any(tool.strict for tool in use.tools)


def _answer(rules: Rules, answer: Grammar) -> str:
    """The answer's own grammar as a rule."""
    match answer.kind:
        case "json_object":
            return rules.json({"type": "object"}, strict=True)
        case "json_schema":
            return rules.json(json.loads(answer.source), strict=True)
        case "choice":
            return rules.rule(" | ".join(quoted(text) or '""' for text in json.loads(answer.source)))
        case "regex":
            return rules.rule(f"/{slashed(answer.source)}/")
        case "lark":
            raise InvalidRequest(
                "A grammar cannot stand beside tools; leave one of them out, or set tool_choice to none.",
                param=answer.param,
            )
