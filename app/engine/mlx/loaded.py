"""A resident model's weights, as all of the engine knows them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from app.engine.facts import Together

SHORT = 8
"""Tokens; a state may be of the last few."""


class Abilities(Struct, frozen=True):
    """What may be done with a model's rows so that each says what it says alone; found by trying it at load.

    ``group``: prompts of different lengths are computed together, padded. ``batch``: rows decode together, ``empty``:
    also with rows of which hardly anything is computed, less than ``SHORT`` tokens. ``ahead``: the graph of a step may
    be built before the tokens that it is for are known. ``mask_axes``: axes of the mask over padded keys,
    ``[rows, 1, 1, keys]`` or, where heads are grouped before masking, ``[rows, 1, 1, 1, keys]``. ``classes``: rows of
    different lengths may lie in rectangles of their own (:mod:`app.engine.mlx.cache.classes`).
    """

    group: bool = True
    batch: bool = True
    empty: bool = True
    ahead: bool = True
    mask_axes: int = 4
    classes: bool = True

    @property
    def told(self) -> Together:
        """The same in words for those who run the service."""
        return Together(
            prompts=self.group and self.batch,
            answers=self.batch,
            short=self.empty,
            lengths=self.classes,
            ahead=self.ahead,
        )


ABLE = Abilities()
"""What nearly every model is."""


class Loaded(Struct, frozen=True):
    """A resident model and what was measured of it.

    ``kv_bytes_per_token`` is of the KV cache, ``vocabulary`` the width of the logits, ``rows`` those of the token
    embedding. ``kv_bits`` are the bits per value of its KV caches, where these are quantised.
    """

    model: Any
    nbytes: int
    kv_bytes_per_token: int
    vocabulary: int
    rows: int
    kv_bits: int | None = None
    abilities: Abilities = ABLE
