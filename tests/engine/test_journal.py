"""What is done to KV caches is told to whoever repeats it: every operation, by the same numbers, once."""

from collections.abc import Callable
from inspect import getmembers, isfunction
from typing import Any, cast

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

from app.engine.mlx.cache.journal import Journal, SharedModel
from app.engine.mlx.cache.kv import KV, merge
from tests.support.tiny import tiny

READS = {"bytes_per_token", "computed", "fill"}
"""What changes nothing; to fill a cache is told as the forward pass that it is."""


class Told:
    """A journal that keeps what it is told, and does it here."""

    def __init__(self) -> None:
        self.operations: list[Any] = []

    def fresh(self, model: SharedModel, bits: int | None, mask_axes: int) -> KV:
        self.operations.append("fresh")
        kv = KV(make_prompt_cache(model.own), 1, merged=False, mask_axes=mask_axes)
        kv.journal = cast("Journal", self)
        return kv

    def forward(self, model: SharedModel, layers: list[Any], tokens: mx.array, *, logits: bool) -> mx.array:
        self.operations.append(("forward", tokens.shape, logits))
        return model.own(tokens, cache=layers)

    def repeat(self, operation: Callable[..., Any], kv: KV, arguments: tuple[list[int | KV], ...]) -> KV:
        self.operations.append(operation.__name__)
        kv.journal = None
        made = operation(kv, *arguments)
        kv.journal = cast("Journal", self)
        if isinstance(made, KV):
            made.journal = cast("Journal", self)
        return made


def test_every_operation_that_changes_a_cache_is_recorded() -> None:
    operations = {name: it for name, it in getmembers(KV, isfunction) if not name.startswith("_")}
    assert {name for name, it in operations.items() if not hasattr(it, "recorded")} == READS


def test_operations_and_forward_passes_are_told_in_their_order_and_those_within_others_are_not() -> None:
    journal = Told()
    model = SharedModel(load_model(tiny())[0], cast("Journal", journal), 0)
    a, b = KV.fresh(model), KV.fresh(model)
    a.fill(model, mx.array([[5, 6, 7]]))
    b.fill(model, mx.array([[5, 6]]))
    both = merge([a, b])
    model(mx.array([[1], [2]]), cache=both.layers)
    both.select([1])
    assert journal.operations == [
        "fresh",
        "fresh",
        ("forward", (1, 3), False),
        ("forward", (1, 2), False),
        "beside",
        ("forward", (2, 1), True),
        "select",
    ]
