"""Calls in a conversation, as chat templates of each kind take them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from app.engine.mlx.text.tokenizer import MLXTokenizer
from tests.support.tiny import tiny

LOOP = "{% for m in messages %}"
PLAIN = "<{{ m.role }}>{{ m.content }}\n"
CALLS = "{% for c in m.tool_calls %}[{{ c.id }} {{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}"
MANY = LOOP + PLAIN + "{% if m.tool_calls %}" + CALLS + "{% endif %}{% endfor %}"
ONE = (
    LOOP + PLAIN + "{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('one') }}{% endif %}"
    "[{{ m.tool_calls[0].function.name }}]{% endif %}{% endfor %}"
)
FIRST = LOOP + PLAIN + "{% if m.tool_calls %}[{{ m.tool_calls[0].function.name }}]{% endif %}{% endfor %}"
TEXT = (
    LOOP + PLAIN + "{% if m.tool_calls %}{% for c in m.tool_calls %}"
    "{{ '[' + c.function.name + c.function.arguments + ']' }}{% endfor %}{% endif %}{% endfor %}"
)
NINE = (
    LOOP + PLAIN + "{% for c in m.tool_calls or [] %}"
    "{% if c.id | length != 9 %}{{ raise_exception('nine') }}{% endif %}"
    "[{{ c.function.name }}#{{ c.id }}]{% endfor %}"
    "{% if m.role == 'tool' %}{% if m.tool_call_id | length != 9 %}{{ raise_exception('nine') }}{% endif %}"
    "#{{ m.tool_call_id }}{% endif %}{% endfor %}"
)
NONE = LOOP + PLAIN + "{% endfor %}"

CONVERSATION: list[dict[str, Any]] = [
    {"role": "user", "content": "Both?"},
    {
        "role": "assistant",
        "content": "Now.",
        "tool_calls": [
            {"id": "call_a-1", "type": "function", "function": {"name": "f", "arguments": {"é": 1}}},
            {"id": "call_b-2", "type": "function", "function": {"name": "g", "arguments": {}}},
        ],
    },
    {"role": "tool", "content": "of g", "tool_call_id": "call_b-2"},
    {"role": "tool", "content": "of f", "tool_call_id": "call_a-1"},
    {"role": "user", "content": "And?"},
]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Callable[..., MLXTokenizer]:
    def make(template: str, *marks: str) -> MLXTokenizer:
        directory = tmp_path / "model"
        shutil.copytree(tiny(), directory, dirs_exist_ok=True)
        made = Tokenizer.from_file(str(directory / "tokenizer.json"))
        made.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
        made.save(str(directory / "tokenizer.json"))
        config = json.loads((directory / "tokenizer_config.json").read_text()) | {"chat_template": template}
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
        return MLXTokenizer.load(directory, None)

    return make


@pytest.mark.parametrize(
    ("template", "written"),
    [
        (MANY, '<assistant>Now.\n[call_a-1 f {"é": 1}][call_b-2 g {}]<tool>of g\n<tool>of f\n'),
        (ONE, "<assistant>Now.\n[f]<tool>of f\n<assistant>\n[g]<tool>of g\n"),
        (FIRST, "<assistant>Now.\n[f]<tool>of f\n<assistant>\n[g]<tool>of g\n"),
        (TEXT, '<assistant>Now.\n[f{"é": 1}][g{}]<tool>of g\n<tool>of f\n'),
        (
            NONE,
            (
                '<assistant>Now.\n<tool_call>\n{"name": "f", "arguments": {"é": 1}}\n</tool_call>\n<tool_call>\n'
                '{"name": "g", "arguments": {}}\n</tool_call>\n<user><tool_response>\nof g\n</tool_response>\n'
                "<user><tool_response>\nof f\n</tool_response>\n"
            ),
        ),
    ],
)
def test_calls_are_written_as_the_template_takes_them(
    tokenizer: Callable[..., MLXTokenizer], template: str, written: str
) -> None:
    text = tokenizer(template).render_chat(CONVERSATION)
    assert text == f"<user>Both?\n{written}<user>And?\n"


def test_ids_of_other_origin_become_short_and_stay_together(tokenizer: Callable[..., MLXTokenizer]) -> None:
    text = tokenizer(NINE).render_chat(CONVERSATION)
    ids = [part[:9] for part in text.split("#")[1:]]
    assert len(ids) == 4
    assert ids[:2] == ids[:1:-1]
    assert len(set(ids)) == 2
    short = json.loads(json.dumps(CONVERSATION).replace("call_a-1", "abcdefghi"))
    assert "[f#abcdefghi]" in tokenizer(NINE).render_chat(short)


def test_a_template_may_read_tools_from_a_variable_of_its_own(tokenizer: Callable[..., MLXTokenizer]) -> None:
    template = "{% for t in xml_tools or [] %}{{ t.function.name }}{% endfor %}" + MANY
    made = tokenizer(template)
    assert made.template_takes_tools
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    assert made.render_chat(CONVERSATION[:1], tools=[tool]).startswith("look<user>")


def test_a_template_that_reads_what_a_schema_says_takes_tools(tokenizer: Callable[..., MLXTokenizer]) -> None:
    template = "{% for t in tools or [] %}{{ t.function.name }}{{ t.function.parameters.properties.items() | list }}"
    assert tokenizer(template + "{% endfor %}" + MANY).template_takes_tools


def test_thinking_is_asked_for_only_by_the_client(tokenizer: Callable[..., MLXTokenizer]) -> None:
    template = "{{ 'on' if enable_thinking is defined and enable_thinking else 'off' }}" + MANY
    made = tokenizer(template, "<think>", "</think>")
    assert made.thinking.start == "<think>"
    assert made.render_chat(CONVERSATION[:1]).startswith("off")
    assert made.render_chat(CONVERSATION[:1], variables={"enable_thinking": True}).startswith("on")


@pytest.mark.parametrize(
    ("words", "marks", "known"),
    [
        (
            "<|START_ACTION|>",
            ["<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>"],
            ("command_r7b", True, 1),
        ),
        ("", ["<|tools_prefix|>", "<|inner_prefix|>", "<|inner_suffix|>"], ("apertus", True, 0)),
        ("<seed:tool_call>", ["<seed:think>", "</seed:think>"], ("seed_oss", True, 0)),
        ("<｜tool▁sep｜>```json", [], ("deepseek_r1", False, 0)),
        ("<｜tool▁sep｜>", ["<think>", "</think>"], ("deepseek_v31", True, 0)),
        ("[TOOL_CALLS]", ["[THINK]", "[/THINK]"], ("mistral", True, 0)),
        ('<tool_call>\n{"name": <f>, "arguments": <o>}', [], ("json_tools", False, 0)),
    ],
)
def test_families_are_known_by_words_of_their_templates_and_by_their_tokens(
    tokenizer: Callable[..., MLXTokenizer], words: str, marks: list[str], known: tuple[str, bool, int]
) -> None:
    made = tokenizer("{# " + words + " #}" + MANY, *marks)
    assert (made.call_format, made.thinking is not None, len(made.answer_marks)) == known


def test_a_template_that_reads_descriptions_is_given_some(tokenizer: Callable[..., MLXTokenizer]) -> None:
    told = "{% for t in tools or [] %}{{ '// ' + t.function.description }}{{ t.function.name }}{% endfor %}"
    template = told + MANY
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    assert tokenizer(template).render_chat(CONVERSATION[:1], tools=[tool]).startswith("// look<user>")


def test_content_and_calls_are_told_apart_where_a_template_shows_one_of_them(
    tokenizer: Callable[..., MLXTokenizer],
) -> None:
    template = LOOP + "<{{ m.role }}>{% if m.tool_calls %}" + CALLS + "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    text = tokenizer(template).render_chat(CONVERSATION[:3])
    assert text == '<user>Both?<assistant>Now.<assistant>[call_a-1 f {"é": 1}][call_b-2 g {}]<tool>of g'


def test_gpt_oss_reads_thoughts_and_ends_with_its_calls(tokenizer: Callable[..., MLXTokenizer]) -> None:
    template = LOOP + "<{{ m.role }}>{{ m.thinking or '' }}|{{ m.content or '' }}|{{ 'content' in m }}\n{% endfor %}"
    made = tokenizer(template + "{{ reasoning_effort }}", "<|channel|>", "<|constrain|>", "<|call|>", "<|return|>")
    assert made.call_format == "harmony"
    assert {made.added_id("<|call|>"), made.added_id("<|return|>")} <= made.eos_ids
    said = {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}
    text = made.render_chat([CONVERSATION[0], said], variables={"reasoning_effort": "minimal"})
    assert text == "<user>|Both?|True\n<assistant>Hm.|Yes.|True\nlow"
