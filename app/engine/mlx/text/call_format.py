"""How a model family marks its thoughts, its answer and its tool calls, by what tokenizer and chat template say."""

from __future__ import annotations

from collections.abc import Container

from mlx_lm.tokenizer_utils import TokenizerWrapper

TEMPLATES = (
    (('{"name": function name, "parameters":',), "llama3_json"),
    (("<|START_ACTION|>",), "command_r7b"),
    (("<seed:tool_call>",), "seed_oss"),
    (("<｜tool▁sep｜>", "```json"), "deepseek_r1"),
    (("<｜tool▁sep｜>",), "deepseek_v31"),
    (("<|tools_prefix|>",), "apertus"),
    (("<tool_call>", '{"name":', "arguments"), "json_tools"),
)
"""Formats that mlx-lm has no name for, or does not look for, by words of their templates."""
VOCABULARIES = (("<|START_ACTION|>", "command_r7b"), ("<|tools_prefix|>", "apertus"))
"""The same by a token, for templates that do not name it."""
HARMONY = ("<|channel|>", "<|constrain|>", "<|call|>")
"""Tokens of gpt-oss's format, ``harmony``; answers end with the last of them too."""
CHANNEL_THOUGHTS = ("<|channel|>analysis<|message|>", "<|end|>")
THOUGHTS = (
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
"""Marks of thoughts that mlx-lm does not know: Magistral, Seed-OSS, Apertus, Command R7B."""
ANSWERS = ("<|START_RESPONSE|>", "<|END_RESPONSE|>")
"""Marks around an answer that are no part of it."""


def call_format(wrapper: TokenizerWrapper, vocabulary: Container[str]) -> str | None:
    """mlx-lm's name for the format (its ``tool_parsers``) or one of ``TEMPLATES``; None if it is not known."""
    if all(token in vocabulary for token in HARMONY):
        return "harmony"
    named: str | None = wrapper.init_kwargs.get("tool_parser_type")
    if named is not None:
        return named
    template = template_source(wrapper)
    for words, name in TEMPLATES:
        if all(word in template for word in words):
            return name
    return next((name for token, name in VOCABULARIES if token in vocabulary), None)


def template_source(wrapper: TokenizerWrapper) -> str:
    """The chat template's text, of several the one for tools; empty if there is none, or it is not one of Jinja."""
    template = wrapper.chat_template
    if isinstance(template, dict):
        template = template.get("tool_use", template.get("default"))
    return template if isinstance(template, str) else ""


def thoughts(wrapper: TokenizerWrapper, vocabulary: Container[str]) -> tuple[str, str] | None:
    """The marks around thoughts."""
    if all(token in vocabulary for token in HARMONY):
        return CHANNEL_THOUGHTS
    if wrapper.has_thinking:
        return wrapper.think_start, wrapper.think_end
    return next((marks for marks in THOUGHTS if marks[0] in vocabulary and marks[1] in vocabulary), None)


def answer_marks(wrapper: TokenizerWrapper, vocabulary: Container[str]) -> tuple[str, ...]:
    """Marks that frame an answer and are never text."""
    return (*wrapper.structural_markers, *(mark for mark in ANSWERS if mark in vocabulary))
