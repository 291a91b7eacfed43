"""LoRA adapters of random weights, as mlx-lm writes them."""

import json
from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx

RANK = 4


def make_adapter(
    directory: Path, keys: Mapping[str, tuple[int, int]], *, dropout: float = 0.0, spread: float = 1.0
) -> Path:
    """Of two layers; ``keys`` are the modules that it changes, with the sizes of what they take and give.

    The same arguments give the same weights, of standard deviation ``spread``: with 0 nothing is changed.
    """
    directory.mkdir(parents=True)
    parameters = {"rank": RANK, "scale": 8.0, "dropout": dropout, "keys": list(keys)}
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    mx.random.seed(3)
    weights = {
        f"model.layers.{layer}.{key}.{part}": spread * mx.random.normal(shape)
        for layer in range(2)
        for key, (wide, out) in keys.items()
        for part, shape in (("lora_a", (wide, RANK)), ("lora_b", (RANK, out)))
    }
    mx.save_safetensors(str(directory / "adapters.safetensors"), weights)
    return directory
