"""What a tokenizer tells of its family's marks, and which special tokens are text."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
from mlx_lm import tool_parsers
from tokenizers import AddedToken, Tokenizer

from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.generation.tools.table import formats
from tests.support.tiny import tiny

QWEN = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    'Answer with <tool_call>{"name": ...}</tool_call>{% if false %}{{ tool_call.name }}{% endif %}<|im_end|>\n'
    "{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
LLAMA = '{% if tools %}{{ tools | tojson }} {"name": function name, "parameters": {}}{% endif %}{{ messages }}'


@pytest.fixture
def tokenizer(tmp_path: Path) -> Callable[..., MLXTokenizer]:
    """The small tokenizer with more marks, some special and some not, and another chat template."""

    def make(template: str, **marks: Any) -> MLXTokenizer:
        directory = tmp_path / "model"
        shutil.copytree(tiny(), directory, dirs_exist_ok=True)
        made = Tokenizer.from_file(str(directory / "tokenizer.json"))
        made.add_tokens([AddedToken(mark, special=special, normalized=False) for mark, special in marks.items()])
        made.save(str(directory / "tokenizer.json"))
        config = json.loads((directory / "tokenizer_config.json").read_text()) | {"chat_template": template}
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
        return MLXTokenizer.load(directory, None)

    return make


def test_a_family_is_known_by_its_template_and_its_tokens(tokenizer: Callable[..., MLXTokenizer]) -> None:
    made = tokenizer(QWEN, **{"<think>": False, "</think>": False, "<tool_call>": False, "</tool_call>": False})
    assert (made.thinking.start, made.thinking.end) == ("<think>", "</think>")
    assert made.call_format == "json_tools"
    assert made.template_takes_tools


def test_every_format_that_mlx_lm_names_is_read_here() -> None:
    assert {module.name for module in iter_modules(tool_parsers.__path__)} <= formats().keys()


def test_llama_3_is_known_by_what_its_template_asks_for(tokenizer: Callable[..., MLXTokenizer]) -> None:
    made = tokenizer(LLAMA)
    assert (made.call_format, made.thinking) == ("llama3_json", None)
    assert made.template_takes_tools


def test_a_plain_template_takes_no_tools(tokenizer: Callable[..., MLXTokenizer]) -> None:
    made = tokenizer("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    assert (made.call_format, made.template_takes_tools) == (None, False)


def test_special_tokens_are_text_only_where_they_are_kept(tokenizer: Callable[..., MLXTokenizer]) -> None:
    made = tokenizer(QWEN, **{"[TOOL_CALLS]": True, "<tool_call>": False})
    special, plain = made.added_id("[TOOL_CALLS]"), made.added_id("<tool_call>")
    end = made.added_id("<|im_end|>")
    assert special is not None
    assert plain is not None
    assert end is not None
    ids = [*made.encode("é is "), special, *made.encode("x"), plain, end, *made.encode("y")]

    def said(**keep: frozenset[int]) -> str:
        detokenizer = made.detokenizer((5, special, 6), **keep)
        return "".join(detokenizer.push(token) for token in ids) + detokenizer.finish()

    assert said() == "é is x<tool_call>y"
    assert said(keep=frozenset({special})) == "é is [TOOL_CALLS]x<tool_call>y"
    assert made.added_id("no such token") is None


def test_ids_are_decoded_with_special_tokens_as_they_are_written(tokenizer: Callable[..., MLXTokenizer]) -> None:
    made = tokenizer(QWEN, **{"<|vision|>": True, "<note>": False})
    text = "<|im_start|>user\nhello<note> there<|vision|><|im_end|>"
    assert made.decode(tuple(made.encode(text, special_tokens=False))) == text
