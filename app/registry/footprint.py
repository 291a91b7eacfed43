"""What a model directory will need in memory, read from its headers before anything is loaded."""

import math
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from app.engine.options import DraftOptions, kv_group
from app.engine.ranks import Ranks
from app.errors import ModelUnusable
from app.registry.hub import Tensor, tensors_of, weights
from app.settings import ModelEntry

ALLOWANCE_TOKENS = 1024
"""Tokens whose KV cache is booked before the load."""
_HALVES = {"F16", "BF16"}
_FLOATS = {"F16": 2, "BF16": 2, "F32": 4}
TOKENIZER = 12
"""Bytes in memory for each byte of a tokenizer.json: 6 to 14 were measured of real ones."""
SCORES = 6 << 20
"""Bytes for each head, about, of what a slice and a step compute on a CPU."""
GROUP = 64
"""Weights that share a scale and a bias when a model is quantised on load."""
_MANY_LAYERS = 1000
"""More than any model has."""

EVERYWHERE = ("embed", "lm_head", "wte", "wpe")
"""Parts of the names of what every rank holds whole."""

_Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class Footprint(Struct, frozen=True):
    """A model on disk: its directory, the bytes of its weights, and KV cache for a first short request.

    Both numbers include those of its ``draft``. ``beside`` is about what its process holds beside them, ``host`` the
    same where that lies in a memory of its own, the system's.
    """

    path: Path
    weights: int
    allowance: int = 0
    draft: DraftOptions | None = None
    beside: int = 0
    host: int = 0

    @property
    def needed(self) -> int:
        """What must be free before it is loaded."""
        return self.weights + self.allowance + self.beside


class _Shape(Struct, frozen=True):
    """The fields of config.json that a transformer's KV cache follows from, by transformers' names."""

    num_hidden_layers: _Count
    num_attention_heads: _Count
    num_key_value_heads: _Count | None = None
    hidden_size: _Count | None = None
    head_dim: _Count | None = None


class _Depth(Struct, frozen=True):
    """How many layers there are, wherever config.json says it."""

    num_hidden_layers: int = 0
    n_layers: int = 0
    n_layer: int = 0
    text_config: "_Depth | None" = None


class _Nested(Struct, frozen=True):
    text_config: _Shape


def footprint(
    path: Path,
    *,
    half_bytes: int = 2,
    quantize: int | None = None,
    kv_bits: int | None = None,
    process: int = 0,
    host_process: int = 0,
    ranks: tuple[int, int] | None = None,
) -> Footprint:
    """Read a model directory. Raises :class:`app.errors.ModelUnusable` for missing or truncated weights.

    A value of 16 bits takes ``half_bytes`` in memory. ``quantize`` is in bits per weight; a checkpoint that is
    quantised already stays as it is. ``kv_bits`` is in bits per value of the KV cache. A process without a model takes
    ``process`` bytes of the budget, 0 where what lies beside arrays is no part of it and takes ``host_process`` of the
    system's memory, for all ranks on this machine. Of a model over
    ``ranks``, so many of which the second share this memory, what lies in it is counted.
    """
    tensors = weights(path) | {
        f"{file.parent.name}.{name}": tensor
        for file in sorted(path.glob("[0-9]*_*/model.safetensors"))
        for name, tensor in tensors_of(file).items()
    }
    _check_depth(path, len(tensors))
    bits = None if any(name.endswith(".scales") for name in tensors) else quantize
    sizes = {name: _held(tensor, half_bytes, bits) for name, tensor in tensors.items()}
    held, shape = sum(sizes.values()), _shape(path)
    allowance, processes = kv_bytes_per_token(path, half_bytes, kv_bits) * ALLOWANCE_TOKENS, 1
    if ranks is not None:
        whole = sum(size for name, size in sizes.items() if any(part in name for part in EVERYWHERE))
        count, processes = ranks
        held = processes * (whole + (held - whole) // count)
        allowance = processes * allowance // count
    if not process:
        host = host_process + TOKENIZER * _tokenizer_bytes(path) if host_process else 0
        return Footprint(path, held, allowance, host=host)
    scores = 0 if shape is None or half_bytes <= 2 else shape.num_attention_heads * SCORES
    beside = processes * process + TOKENIZER * _tokenizer_bytes(path) + scores
    return Footprint(path, held, allowance, beside=beside)


def ranks_of(entry: ModelEntry) -> Ranks | None:
    """How a model is divided, if it is."""
    if entry.ranks is None and entry.hosts is None:
        return None
    return Ranks(entry.ranks or 0, None if entry.hosts is None else str(entry.hosts))


def _tokenizer_bytes(path: Path) -> int:
    """Those of tokenizer.json, 0 where there is none."""
    try:
        return (path / "tokenizer.json").stat().st_size
    except OSError:
        return 0


def _check_depth(path: Path, tensors: int) -> None:
    """Refuse more layers than tensors: merely building so many may take all memory there is."""
    try:
        depth = msgspec.json.decode((path / "config.json").read_bytes(), type=_Depth)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    layers = max(max(it.num_hidden_layers, it.n_layers, it.n_layer) for it in (depth, depth.text_config or depth))
    if layers > max(tensors, _MANY_LAYERS):
        raise ModelUnusable(
            f"config.json tells of {layers} layers and the weights are {tensors} tensors, so they do not belong "
            "together. Name another model or repair it.",
            code="model_corrupt",
        )


def adapter_footprint(path: Path, *, half_bytes: int = 2) -> Footprint:
    """Read an adapter's directory; its base is counted by itself. Raises as :func:`footprint` does."""
    tensors = tensors_of(path / "adapters.safetensors")
    return Footprint(path, sum(_held(tensor, half_bytes, None) for tensor in tensors.values()))


def _held(tensor: Tensor, half_bytes: int, bits: int | None) -> int:
    """Bytes in memory: layers' matrices are packed if ``bits`` are given, values of 16 bits may be widened."""
    width = half_bytes if tensor.dtype in _HALVES else _FLOATS.get(tensor.dtype, 0)
    if bits is not None and width and len(tensor.shape) > 1 and not tensor.shape[-1] % GROUP:
        values = math.prod(tensor.shape)
        return values * bits // 8 + 2 * width * values // GROUP
    return tensor.nbytes * half_bytes // 2 if tensor.dtype in _HALVES else tensor.nbytes


def kv_bytes_per_token(path: Path, half_bytes: int = 2, kv_bits: int | None = None) -> int:
    """Keys and values of one token, all layers, in values of 16 bits or ``kv_bits``; 0 if config.json does not say.

    An estimate for the time before the model is loaded: a loaded engine states its own.
    """
    shape = _shape(path)
    if shape is None:
        return 0
    heads = shape.num_attention_heads if shape.num_key_value_heads is None else shape.num_key_value_heads
    width = shape.head_dim
    if width is None:
        width = 0 if shape.hidden_size is None else shape.hidden_size // shape.num_attention_heads
    return 2 * shape.num_hidden_layers * heads * _head_bytes(width, half_bytes, kv_bits)


def _shape(path: Path) -> _Shape | None:
    """What config.json says of keys and values, if it can be read."""
    try:
        return _decode((path / "config.json").read_bytes())
    except OSError:
        return None


def _head_bytes(width: int, half_bytes: int, kv_bits: int | None) -> int:
    """Keys of one head and token; in few bits each group of them has a scale and a bias besides."""
    group = kv_group(width)
    if kv_bits is None or group is None:
        return half_bytes * width
    return width * kv_bits // 8 + 2 * half_bytes * (width // group)


def _decode(config: bytes) -> _Shape | None:
    try:
        return msgspec.json.decode(config, type=_Shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return msgspec.json.decode(config, type=_Nested).text_config
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
