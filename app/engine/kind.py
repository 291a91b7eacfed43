"""What a model directory is for, told from its own files before anything is loaded."""

import re
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from app.errors import InvalidRequest

Kind = Literal["text", "embedding", "rerank"]
"""Whether a model generates text, makes vectors of texts, or scores documents for a query."""
Pooling = Literal["cls", "mean", "max", "mean_sqrt_len", "lasttoken", "weightedmean"]
"""How the vectors of a text's tokens become the vector of the text, by sentence-transformers' names."""
ENCODERS = frozenset({"bert", "roberta", "xlm-roberta", "modernbert"})
"""Values of ``model_type`` in config.json whose attention goes both ways: such models generate nothing."""
_CLASSIFIER = "ForSequenceClassification"
_YES_OR_NO = re.compile(r"qwen3.*rerank", re.IGNORECASE)
"""Names of checkpoints that look like chat models and are trained to say yes or no of a document."""
_NOTHING = b"{}"
_IS: dict[Kind, str] = {
    "text": "a chat model: it generates text",
    "embedding": "an embedding model: it makes vectors of texts, for POST /v1/embeddings",
    "rerank": "a reranker: it scores documents for a query, for POST /v1/rerank",
}
_NAME: dict[Kind, str] = {
    "text": "Name a chat model here.",
    "embedding": "Name an embedding model here; one whose files do not say how vectors are made needs `pooling` in its "
    "entry of models.toml.",
    "rerank": "Name a reranker here.",
}


class Module(Struct, frozen=True):
    """One entry of modules.json: ``type`` is a Python class by its full name, ``path`` its folder."""

    type: str
    path: str = ""

    @property
    def name(self) -> str:
        """The class's own name, whichever package it has moved to."""
        return self.type.rpartition(".")[2]


class Described(Struct, frozen=True):
    """What config.json says of a model's architecture."""

    model_type: str = ""
    architectures: tuple[str, ...] | None = None


def kind_of(directory: Path, *, name: str, pooling: Pooling | None = None) -> Kind:
    """What the model of that name and directory is for; ``pooling`` is what the settings say of it.

    Source: modules.json as sentence-transformers writes it; ``architectures`` as transformers does. What cannot be read
    counts as a text model, whose load tells what is wrong.
    """
    if pooling is not None:
        return "embedding"
    config, modules = _described(directory), {module.name for module in modules_of(directory)}
    if "LogitScore" in modules or any(it.endswith(_CLASSIFIER) for it in config.architectures or ()):
        return "rerank"
    if "Pooling" in modules or config.model_type in ENCODERS:
        return "embedding"
    return "rerank" if config.model_type.startswith("qwen3") and _YES_OR_NO.search(name) else "text"


def modules_of(directory: Path) -> tuple[Module, ...]:
    """The steps of modules.json, none where there is no such file or it is not one."""
    try:
        return msgspec.json.decode(_read(directory / "modules.json") or b"[]", type=tuple[Module, ...])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()


def _described(directory: Path) -> Described:
    try:
        return msgspec.json.decode(_read(directory / "config.json") or _NOTHING, type=Described)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Described()


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def unfit(name: str, kind: Kind, wanted: Kind) -> InvalidRequest:
    """The failure of a request that wants something else of a model than what it is for."""
    return InvalidRequest(f"{name} is {_IS[kind]}. {_NAME[wanted]}", param="model", code="model_kind")
