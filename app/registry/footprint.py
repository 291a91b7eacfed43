"""What a model directory will need in memory, read from its headers before anything is loaded."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from app.registry.hub import weight_bytes

_ALLOWANCE_TOKENS = 1024
_KV_BYTES = 2

_Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class Footprint(Struct, frozen=True):
    """A model on disk: its directory, the bytes of its weights, and KV cache for a first short request."""

    path: Path
    weights: int
    allowance: int = 0

    @property
    def needed(self) -> int:
        """What must be free before it is loaded."""
        return self.weights + self.allowance


class _Shape(Struct, frozen=True):
    """The fields of config.json that a transformer's KV cache follows from, by transformers' names."""

    num_hidden_layers: _Count
    num_attention_heads: _Count
    num_key_value_heads: _Count | None = None
    hidden_size: _Count | None = None
    head_dim: _Count | None = None


class _Nested(Struct, frozen=True):
    text_config: _Shape


def footprint(path: Path) -> Footprint:
    """Read a model directory. Raises :class:`app.errors.ModelUnusable` for missing or truncated weights."""
    return Footprint(path, weight_bytes(path), kv_bytes_per_token(path) * _ALLOWANCE_TOKENS)


def kv_bytes_per_token(path: Path) -> int:
    """Keys and values of one token at 16 bits, all layers; 0 if config.json does not say.

    An estimate for the time before the model is loaded: a loaded engine states its own.
    """
    try:
        config = (path / "config.json").read_bytes()
    except OSError:
        return 0
    shape = _decode(config)
    if shape is None:
        return 0
    heads = shape.num_attention_heads if shape.num_key_value_heads is None else shape.num_key_value_heads
    width = shape.head_dim
    if width is None:
        width = 0 if shape.hidden_size is None else shape.hidden_size // shape.num_attention_heads
    return 2 * _KV_BYTES * shape.num_hidden_layers * heads * width


def _decode(config: bytes) -> _Shape | None:
    try:
        return msgspec.json.decode(config, type=_Shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return msgspec.json.decode(config, type=_Nested).text_config
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
