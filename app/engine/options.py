"""How a model is loaded, as its entry in ``models.toml`` says."""

from pathlib import Path
from typing import Literal

from msgspec import Struct

from app.engine.kind import Pooling
from app.engine.ranks import Ranks

KV_GROUPS = (64, 32)
"""Values of one head that may share a scale and a bias in a quantised KV cache, the wanted number first."""


DType = Literal["auto", "float16", "bfloat16"]


class DraftOptions(Struct, frozen=True, kw_only=True):
    """The model that drafts: its name, its directory, and how its own entry says that it is loaded."""

    name: str
    path: Path
    quantize: int | None = None
    kv_bits: int | None = None


PROMPT_LOOKUP = "prompt-lookup"
"""Stands for a model that drafts: what a text has said before is proposed again."""


class LoadOptions(Struct, frozen=True, kw_only=True):
    """``quantize`` is in bits per weight, ``kv_bits`` in bits per value of the KV cache; None leaves things be.

    ``draft`` proposes tokens for speculative decoding and belongs to the engine from the load on; None: nobody does.
    With ``lookup``, and no draft, tokens are proposed that followed where a text's end stood in it before.
    ``dtype`` is the type of 16 bits that it computes in, where it has such weights and the device has such types.
    With ``ranks`` it lies on several processes.
    ``pooling`` makes an embedder of a model whose files do not say that it is one.
    """

    quantize: int | None = None
    kv_bits: int | None = None
    draft: DraftOptions | None = None
    lookup: bool = False
    pooling: Pooling | None = None
    dtype: DType = "auto"
    ranks: Ranks | None = None


AS_IT_IS = LoadOptions()
"""Nothing is changed on the way."""


def kv_group(*sizes: int) -> int | None:
    """How many values form one group, for heads with ``sizes`` values; None if no group divides them all."""
    return next((group for group in KV_GROUPS if not any(size % group for size in sizes)), None)


class DiskRoom(Struct, frozen=True):
    """Where prefixes are kept on disk, and the bytes that all models together may take there."""

    folder: str
    nbytes: int


class Batching(Struct, frozen=True):
    """How many rows decode together, and how many prompt tokens are computed between two steps (0: as suits).

    ``disk`` is where prefixes are kept on disk; None: nowhere.
    """

    max_rows: int
    slice_tokens: int = 0
    disk: DiskRoom | None = None
