"""A resident model's weights, as all of the engine knows them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Loaded(Struct, frozen=True):
    """A resident model and what was measured of it: KV cache bytes of one token, width of the logits.

    ``kv_bits`` are the bits per value of its KV caches, where these are quantised.
    """

    model: Any
    nbytes: int
    kv_bytes_per_token: int
    vocabulary: int
    kv_bits: int | None = None
