"""Every call format by the engine's name for it."""

from app.engine.text import TextFacts
from app.errors import InvalidRequest
from app.generation.job import ToolPrompt
from app.generation.tools import tag_families as tags
from app.generation.tools.bracketed import Apertus, CommandR7B
from app.generation.tools.deepseek import DeepSeek
from app.generation.tools.format import Format
from app.generation.tools.gemma import Gemma
from app.generation.tools.harmony import NAME, Harmony
from app.generation.tools.json_tools import JSONTools
from app.generation.tools.kimi_k2 import KimiK2
from app.generation.tools.kimi_k3 import KimiK3
from app.generation.tools.llama3 import Llama3
from app.generation.tools.mistral import Mistral
from app.generation.tools.pythonic import Pythonic
from app.generation.tools.tagged import Tagged

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
    known: Format | None = None if text.call_format is None else formats().get(text.call_format)
    if text.call_format == NAME and text.template_takes_tools:
        return Harmony()
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
