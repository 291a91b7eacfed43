"""A resident model's weights, as all of the engine knows them."""

from __future__ import annotations

from math import ceil
from typing import Any

from msgspec import Struct

from app.engine.facts import Law, Together

ANY = 1 << 30
"""Tokens; more than any slice has."""
SHORT = 8
"""Tokens; a state may be of the last few."""


class Abilities(Struct, frozen=True):
    """What may be done with a model's rows so that each says what it says alone; found by trying it at load.

    ``group``: prompts of different lengths are computed together, padded. ``batch``: rows decode together, ``empty``:
    also with rows of which hardly anything is computed, less than ``SHORT`` tokens. ``ahead``: the graph of a step may
    be built before the tokens that it is for are known. ``mask_axes``: axes of the mask over padded keys,
    ``[rows, 1, 1, keys]`` or, where heads are grouped before masking, ``[rows, 1, 1, 1, keys]``. ``classes``: rows of
    different lengths may lie in rectangles of their own (:mod:`app.engine.mlx.cache.classes`). ``last_logits``: those
    behind a prompt come of the pass that computes it (:mod:`app.engine.mlx.prefill.backbone`).
    """

    group: bool = True
    batch: bool = True
    empty: bool = True
    ahead: bool = True
    mask_axes: int = 4
    classes: bool = True
    last_logits: bool = True

    @property
    def described(self) -> Together:
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


class ScratchLaw(Struct, frozen=True):
    """What computing a slice takes beside weights and KV, in bytes: :mod:`app.engine.mlx.load.scratch` measures it.

    ``fixed``, ``token`` for each token, ``pair`` for each token and each position that it looks at, where attention is
    not fused, and ``own`` besides for each pair of tokens of the slice: recurrent layers look at these alone.
    """

    fixed: float = 0.0
    token: float = 0.0
    pair: float = 0.0
    own: float = 0.0

    def nbytes(self, tokens: int, before: int) -> int:
        """For ``tokens`` behind ``before`` others."""
        return ceil(self.fixed + tokens * (self.token + self.pair * before + (self.pair + self.own) * tokens))

    def most(self, room: int, before: int) -> int:
        """The tokens behind ``before`` others whose slice stays within ``room`` bytes, perhaps none."""
        left, linear, square = room - self.fixed, self.token + self.pair * before, self.pair + self.own
        if linear + square == 0:
            return ANY  # nothing is known of it
        if left <= 0:
            return 0
        steep = linear + (linear * linear + 4 * square * left) ** 0.5
        if steep <= 0:
            return ANY
        near = max(1, int(2 * left / steep))
        fit = (most for most in (near + 1, near, near - 1) if self.nbytes(most, before) <= room)
        return next(fit, 0)  # what rounding takes must not cost a slice


class Loaded(Struct, frozen=True):
    """A resident model and what was measured of it.

    ``kv_bytes_per_token`` is of the KV cache, ``vocabulary`` the width of the logits, ``rows`` those of the token
    embedding. ``kv_bits`` are the bits per value of its KV caches, where these are quantised. ``law`` is what a row
    holds, ``scratch`` what computing takes.
    """

    model: Any
    nbytes: int
    kv_bytes_per_token: int
    vocabulary: int
    rows: int
    kv_bits: int | None = None
    abilities: Abilities = ABLE
    law: Law = Law()
    scratch: ScratchLaw = ScratchLaw()
