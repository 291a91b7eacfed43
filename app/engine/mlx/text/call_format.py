"""How a model family writes tool calls, by what its tokenizer and its chat template say."""

from __future__ import annotations

from mlx_lm.tokenizer_utils import TokenizerWrapper


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
