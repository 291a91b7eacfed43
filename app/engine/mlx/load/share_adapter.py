"""LoRA adapters on a model that lies on several ranks: each rank divides an adapter as its base is divided."""

from __future__ import annotations

import copy
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.nn.layers.distributed import (
    AllToShardedLinear,
    QuantizedAllToShardedLinear,
    QuantizedShardedToAllLinear,
    ShardedToAllLinear,
)
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.utils import load_model
from msgspec.structs import replace

from app.engine.facts import Limits
from app.engine.mlx.cache.classes import attend_by_class
from app.engine.mlx.cache.journal import SharedModel
from app.engine.mlx.cores import share_cores
from app.engine.mlx.load.adapter import adapt
from app.engine.mlx.load.self_check import checked
from app.engine.mlx.load.share import ShareRefused, divided, exhausted, made_real, scratch_of_part
from app.engine.mlx.load.weights import measured
from app.engine.mlx.loaded import Loaded
from app.engine.mlx.memory import half_bytes, limit
from app.engine.mlx.ranks.follower import Parts
from app.engine.mlx.ranks.leader import Leader
from app.engine.mlx.ranks.operations import AdaptPart, model_path
from app.engine.options import DType
from app.engine.ranks import Backend

OUT, IN = (AllToShardedLinear, QuantizedAllToShardedLinear), (ShardedToAllLinear, QuantizedShardedToAllLinear)
"""Layers of which each rank has some outputs, and those of which it has some inputs."""


class SharedLoRA(nn.Module):  # type: ignore[misc]  # mlx has no types
    """A divided layer with an adapter: of ``a``, ``[inputs, r]``, or of ``b``, ``[r, outputs]``, this rank's part."""

    def __init__(self, linear: Any, a: mx.array, b: mx.array, scale: float, group: Any) -> None:
        super().__init__()
        self.linear = linear
        self.lora_a = a
        self.lora_b = b
        self._scale = scale
        self._group = group

    def __call__(self, x: mx.array) -> mx.array:
        """The layer's outputs, this rank's or all."""
        inner = x @ self.lora_a
        if isinstance(self.linear, IN):
            inner = mx.distributed.all_sum(inner, group=self._group)
        return self.linear(x) + (self._scale * (inner @ self.lora_b)).astype(x.dtype)


def adapting(base: Loaded, adapter: Path, kv_bits: int | None, leader: Leader | None) -> Generator[None, None, Loaded]:
    """The steps in which an adapter is loaded, here alone or on every rank."""
    return adapt(base, adapter, kv_bits) if leader is None else adapt_parts(leader, base, adapter, kv_bits)


def adapt_parts(leader: Leader, base: Loaded, adapter: Path, kv_bits: int | None) -> Generator[None, None, Loaded]:
    """``base`` with an adapter on every rank. MLX thread of rank 0.

    ``nbytes`` counts this rank's part of the adapter alone. Raises :class:`app.engine.mlx.load.share.ShareRefused` for
    adapters that are not of layers which are divided.
    """
    path = Path(leader.path)
    own = adapted(base.model.own, path, adapter, leader.group)
    leader.models += 1
    number = leader.models
    asked = leader.tell(lambda it: AdaptPart(it, number, leader.path, model_path(adapter)))
    nbytes = yield from made_real(_Adapters(own))
    yield from leader.wait(asked)
    shared = SharedModel(own, leader, number)
    made = yield from measured(shared, nbytes, kv_bits, base.scratch)
    if kv_bits == base.kv_bits:
        return replace(made, abilities=base.abilities)
    return replace(made, abilities=(yield from checked(shared, made.vocabulary, kv_bits)))


def adapted(base: Any, path: Path, adapter: Path, group: Any) -> Any:
    """A second tree of modules over the arrays of a rank's part, with the adapter's part in it, not real yet."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    weights = dict(mx.load(str(adapter / "adapters.safetensors")))
    if config.get("fine_tune_type", "lora") != "lora" or any(not it.endswith(("lora_a", "lora_b")) for it in weights):
        raise ShareRefused("only LoRA adapters are divided with a model that lies on several ranks")
    if half_bytes() > 2:
        weights = {name: array.astype(mx.float32) for name, array in weights.items()}
    kept = {id(array): array for _, array in tree_flatten(base.parameters())} | {id(group): group}
    model = copy.deepcopy(base, kept)
    modules = dict(model.named_modules())
    names = sorted({name.rpartition(".")[0] for name in weights})
    for name in names:
        if not isinstance(modules.get(name), (*OUT, *IN)):
            raise ShareRefused(f"the adapter changes {name}, which is not divided")
    parts = _parts(path, modules, names, weights, group)
    scale = float(config["lora_parameters"]["scale"])
    changed = []
    for name in names:
        a, b = weights[f"{name}.lora_a"], weights[f"{name}.lora_b"]
        a, b = (a, parts[name].T) if isinstance(modules[name], OUT) else (parts[name].T, b)
        changed.append((name, SharedLoRA(modules[name], a, b, scale, group)))
    model.update_modules(tree_unflatten(changed))
    model.eval()
    attend_by_class(model)
    return model


def _parts(
    path: Path, modules: dict[str, Any], names: list[str], weights: dict[str, mx.array], group: Any
) -> dict[str, mx.array]:
    """This rank's part of each adapter's matrix that is divided, as a layer of its shape would be by the model itself.

    A second model, of which nothing is read, has the adapter's matrices in its layers' places.
    """
    model, _ = load_model(path, lazy=True)
    layers = []
    for name in names:
        layer = nn.Linear(1, 1, bias=False)
        layer.weight = (weights[f"{name}.lora_b"] if isinstance(modules[name], OUT) else weights[f"{name}.lora_a"]).T
        layers.append((name, layer))
    model.update_modules(tree_unflatten(layers))
    model.shard(group)
    there = dict(model.named_modules())
    return {name: there[name].weight for name in names}


class _Adapters:
    """What of a model is its adapter's, for :func:`app.engine.mlx.load.share.made_real`."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def parameters(self) -> dict[str, mx.array]:
        """The arrays of all adapters, by their names."""
        found = tree_flatten(self._model.parameters())
        return {name: array for name, array in found if name.endswith(("lora_a", "lora_b"))}


class OwnParts(Parts):
    """How a rank that is not rank 0 comes by its part of a model."""

    def load(self, path: Path, dtype: DType, group: Any, backend: Backend) -> tuple[Any, int]:
        """A model and its bytes."""
        model = divided(path, dtype, group, backend)
        return model, exhausted(made_real(model))

    def adapt(self, base: Any, path: Path, adapter: Path, group: Any) -> tuple[Any, int]:
        """The base with an adapter, and the adapter's own bytes."""
        model = adapted(base, path, adapter, group)
        return model, exhausted(made_real(_Adapters(model)))

    def measure(self, model: Any, bits: int | None) -> None:
        """Compute what rank 0 computes to see what that takes."""
        exhausted(scratch_of_part(model, bits))

    def limit(self, limits: Limits) -> None:
        """Take no more than that from now on."""
        limit(limits)
        share_cores(limits.busy)
