"""How a model family writes tool calls, by what its tokenizer and its chat template say."""

from __future__ import annotations

import json
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from app.engine.text import ParsedCall


def call_format(wrapper: TokenizerWrapper) -> str | None:
    """mlx-lm's name for the format (its ``tool_parsers``), or ``llama3_json``; None if it is not known.

    Llama 3's template asks for ``{"name": function name, "parameters": ...}``, which mlx-lm does not look for.
    """
    named: str | None = wrapper.init_kwargs.get("tool_parser_type")
    if named is not None:
        return named
    template = wrapper.chat_template
    if isinstance(template, str) and '{"name": function name, "parameters":' in template:
        return "llama3_json"
    return None


def parse_calls(wrapper: TokenizerWrapper, text: str, tools: list[dict[str, Any]]) -> tuple[ParsedCall, ...]:
    """mlx-lm's whole-string parser; raises :class:`ValueError` for what it cannot read."""
    if wrapper.tool_parser is None:
        raise ValueError("no parser")
    try:
        parsed = wrapper.tool_parser(text, tools)
        calls = parsed if isinstance(parsed, list) else [parsed]
        return tuple(ParsedCall(str(call["name"]), _json(call["arguments"])) for call in calls)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, SyntaxError) as malformed:
        raise ValueError("not a call") from malformed


def _json(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
