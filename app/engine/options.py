"""How a model is loaded, as its entry in ``models.toml`` says."""

from msgspec import Struct

KV_GROUPS = (64, 32)
"""Values of one head that may share a scale and a bias in a quantised KV cache, the wanted number first."""


class LoadOptions(Struct, frozen=True, kw_only=True):
    """``quantize`` is in bits per weight, ``kv_bits`` in bits per value of the KV cache; None leaves things be."""

    quantize: int | None = None
    kv_bits: int | None = None


AS_IT_IS = LoadOptions()
"""Nothing is changed on the way."""


def kv_group(*sizes: int) -> int | None:
    """How many values form one group, for heads with ``sizes`` values; None if no group divides them all."""
    return next((group for group in KV_GROUPS if not any(size % group for size in sizes)), None)
