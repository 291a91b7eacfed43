"""Servers for clients that call tools and ask for answers in a form."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from litestar import Litestar

from app.engine.base import Sequence
from app.engine.text import Marks
from app.generation.strategy import GenerationStrategy
from app.main import create_app
from app.settings import ModelEntry, Settings
from tests.support.house import scripted_memory, scripted_registry
from tests.support.live import live
from tests.support.scripted import BOS, ByteTokenizer, Script, ScriptedLoader
from tests.support.tiny import make_tiny

THOUGHT = "I must look."
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def two_steps(sequence: Sequence, _row: int) -> bytes:
    """Thinks and calls a function where there is one, and tells its result once that has come."""
    prompt = bytes(token for token in sequence.prompt if token < BOS).decode()
    results = re.findall(r"^<tool>(.*)", prompt, re.MULTILINE)
    if results:
        return f"The answer is: {results[-1]}".encode()
    called = CALL if "<tools>" in prompt else "No tools."
    return f"<think>\n{THOUGHT}\n</think>\n\n{called}".encode()


@contextmanager
def scripted_caller(
    root: Path, script: Script = two_steps, *, context_length: int = 4096, aliases: tuple[str, ...] = ()
) -> Iterator[str]:
    """Base URL of a server whose model ``org/tiny`` thinks, calls functions and follows ``script``."""
    tokenizer = ByteTokenizer(
        template_takes_tools=True, call_format="json_tools", thinking=Marks("<think>", "</think>")
    )

    @asynccontextmanager
    async def app() -> AsyncIterator[Litestar]:
        loader = ScriptedLoader(scripted_memory(), script=script, tokenizer=tokenizer, context_length=context_length)
        async with scripted_registry(loader, root) as registry:
            registry.reload({"org/tiny": ModelEntry(aliases=aliases)})
            yield create_app(Settings(), registry=registry)

    with live(app) as url:
        yield f"{url}/v1"


@contextmanager
def telling(root: Path, strategy: GenerationStrategy) -> Iterator[str]:
    """Base URL of a server whose answers are ``strategy``'s, whatever is asked."""

    @asynccontextmanager
    async def app() -> AsyncIterator[Litestar]:
        async with scripted_registry(ScriptedLoader(scripted_memory()), root) as registry:
            yield create_app(Settings(), registry=registry, strategy=strategy)

    with live(app) as url:
        yield f"{url}/v1"


@contextmanager
def guided(root: Path) -> Iterator[str]:
    """Base URL of a server with MLX models: random ``tiny`` and the embedded one, both told of tools."""
    make_tiny(root / "tiny", seed=1)
    generic = ModelEntry(tool_prompt="generic")
    settings = Settings(
        model_roots=(root,),
        memory_budget=4 << 30,
        offline=True,
        models={"tiny": generic, "HuggingFaceTB/SmolLM2-135M-Instruct": generic},
    )

    @asynccontextmanager
    async def app() -> AsyncIterator[Litestar]:
        yield create_app(settings)

    with live(app) as url:
        yield f"{url}/v1"
