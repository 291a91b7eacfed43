"""Every call format by the engine's name for it."""

import json
from collections.abc import Sequence
from functools import lru_cache

from app.engine.text import PROBES, CallWords, TextFacts
from app.errors import InvalidRequest
from app.generation.events import ToolCallArguments, ToolCallStarted
from app.generation.job import ToolPrompt
from app.generation.schema.keywords import Schema
from app.generation.tools import tag_families as tags
from app.generation.tools.bracketed import Apertus, CommandR7B
from app.generation.tools.deepseek import DeepSeek
from app.generation.tools.format import Format
from app.generation.tools.gemma import Gemma
from app.generation.tools.harmony import NAME, Harmony
from app.generation.tools.json_tools import JSONTools
from app.generation.tools.kimi_k2 import KimiK2
from app.generation.tools.kimi_k3 import KimiK3
from app.generation.tools.learnt import learnt
from app.generation.tools.llama3 import Llama3
from app.generation.tools.machine import ToolMachine
from app.generation.tools.mistral import Mistral
from app.generation.tools.pythonic import Pythonic
from app.generation.tools.tagged import Tagged
from app.generation.tools.toolbox import Tool, Toolbox

PROBED: Schema = {"type": "object", "properties": {"it": {"type": "string"}}, "required": ["it"]}
"""The parameters of the functions that templates are tried with."""
GENERIC = "json_tools"
"""What models that know no tools are asked to write."""


def formats() -> dict[str, Format]:
    """All that are read piece by piece and can be forced."""
    return {
        "apertus": Apertus(),
        "command_r7b": CommandR7B(),
        "deepseek_r1": DeepSeek(fenced=True),
        "deepseek_v31": DeepSeek(fenced=False),
        "function_gemma": Gemma("<start_function_call>", "<end_function_call>", "<escape>"),
        "gemma4": Gemma("<|tool_call>", "<tool_call|>", '<|"|>'),
        "glm47": Tagged(tags.GLM),
        "json_tools": JSONTools(),
        "kimi_k2": KimiK2(),
        "kimi_k3": KimiK3(),
        "laguna": Tagged(tags.GLM),
        "llama3_json": Llama3(),
        "longcat": Tagged(tags.LONGCAT),
        "minicpm5": Tagged(tags.MINICPM5),
        "minimax_m2": Tagged(tags.MINIMAX),
        "mistral": Mistral(),
        "muse_spark": Tagged(tags.MUSE_SPARK),
        "pythonic": Pythonic(),
        "qwen3_coder": Tagged(tags.QWEN3_CODER),
        "seed_oss": Tagged(tags.SEED_OSS),
    }


def own_format(text: TextFacts, prompt: ToolPrompt | None) -> Format | None:
    """The family's, where its template tells of tools; None where they are told in the system message instead.

    ``prompt`` is what the model's settings say: raises :class:`app.errors.InvalidRequest` for models that are to have
    no tools but those their template knows.
    """
    if text.call_format == NAME and text.template_takes_tools:
        return Harmony()
    known = _known(text.call_format, text.call_words, text.calls_written)
    if prompt == "generic":
        return None
    if known is not None and text.template_takes_tools:
        return known
    if prompt == "refuse":
        raise InvalidRequest(
            "This model's chat template knows no tools, or how it writes calls is not known: name another model, or "
            'leave tool_prompt = "refuse" out of its entry in models.toml.',
            param="tools",
            code="tools_not_supported",
        )
    return None


@lru_cache(maxsize=64)
def _known(name: str | None, words: CallWords | None, written: tuple[str, ...]) -> Format | None:
    """The format of this name, or what ``words`` tell, that reads what a template has ``written``."""
    named = None if name is None else formats().get(name)
    if not written or (named is not None and reads(named, written)):
        return named
    learned = None if words is None else learnt(words)
    return learned if learned is not None and reads(learned, written) else None


def reads(format: Format, written: Sequence[str]) -> bool:  # noqa: A002  what it is
    """Whether calls that a template has written for an engine to try it are read as what they are."""
    tools = Toolbox(tuple(Tool(name, PROBED) for name in PROBES))
    for count, text in enumerate(written, 1):
        machine = ToolMachine(format, tools, 0)
        pieces = [*machine.push(text), *machine.finish()]
        names = [it.name for it in pieces if isinstance(it, ToolCallStarted)]
        arguments = [
            "".join(it.text for it in pieces if isinstance(it, ToolCallArguments) and it.call == call)
            for call in range(count)
        ]
        if names != list(PROBES[:count]) or not all(_is_probed(it) for it in arguments):
            return False
    return True


def _is_probed(arguments: str) -> bool:
    try:
        return bool(json.loads(arguments) == {"it": "x"})
    except ValueError:
        return False
