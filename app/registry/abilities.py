"""What a model can do, read from its files: nothing is loaded for it."""

import re
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from app.engine.kind import Kind, kind_of
from app.engine.sampling_defaults import sampling_defaults
from app.schemas.sampling import SamplingDefaults

LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
"""Names of the context's length in config.json, as the engine looks for them."""
TOOLS = re.compile(r"\btools\b")
THOUGHTS = re.compile(r"<[|/\w:-]*think[\w|]*>|enable_thinking|reasoning_content|<\|channel\|?>", re.IGNORECASE)
"""What chat templates of models that think have in them."""


class Abilities(Struct, frozen=True):
    """``context_length`` is in tokens, None where no file says; ``tools`` and ``thinking`` are what templates show.

    A model of another ``kind`` than ``text`` has nothing to chat with. ``sampling`` is how its authors draw.
    ``fitted``: the length is what there is memory for, less than the model's own.
    """

    context_length: int | None = None
    chat: bool = False
    tools: bool = False
    thinking: bool = False
    kind: Kind = "text"
    sampling: SamplingDefaults = SamplingDefaults()
    fitted: bool = False


EMBEDDED = Abilities(context_length=8192, chat=True)
"""SmolLM2-135M-Instruct's, whose files are made when it is asked for."""


def read(path: Path, name: str) -> Abilities:
    """What a model's files say; what they do not say, or not so that it can be read, is not known."""
    config = _json(path / "config.json")
    kind = kind_of(path, name=name)
    if kind != "text":
        return Abilities(kind=kind, context_length=_context_length(config))
    template = _template(path)
    return Abilities(
        context_length=_context_length(config),
        chat=bool(template),
        tools=TOOLS.search(template) is not None,
        thinking=THOUGHTS.search(template) is not None,
        sampling=sampling_defaults(path),
    )


class AbilityReader:
    """Reads each model once, and again when its config.json has changed. Called in threads, one at a time."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[int, Abilities]] = {}

    def all(self, paths: dict[str, Path]) -> dict[str, Abilities]:
        """What the models in these directories can do."""
        return {model: self._one(path, model) for model, path in paths.items()}

    def _one(self, path: Path, model: str) -> Abilities:
        try:
            changed = (path / "config.json").stat().st_mtime_ns
        except OSError:
            return Abilities()
        known = self._read.get(path)
        if known is None or known[0] != changed:
            known = self._read[path] = (changed, read(path, model))
        return known[1]


def _context_length(config: dict[str, Any]) -> int | None:
    text = config.get("text_config")
    for source in (config, text if isinstance(text, dict) else {}):
        for name in LENGTHS:
            value = source.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return None


def _template(path: Path) -> str:
    """All of a model's chat templates, one after the other."""
    found = [_text(path / "chat_template.jinja"), *(_text(it) for it in sorted(path.glob("*_templates/*.jinja")))]
    for name in ("chat_template.json", "tokenizer_config.json"):
        written = _json(path / name).get("chat_template")
        named = written if isinstance(written, list) else [{"template": written}]
        found += [str(it["template"]) for it in named if isinstance(it, dict) and isinstance(it.get("template"), str)]
    return "\n".join(text for text in found if text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
