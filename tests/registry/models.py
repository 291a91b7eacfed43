"""Model directories with real headers and no meaning."""

import json
from collections.abc import Mapping
from pathlib import Path

CONFIG = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64}


def write_model(directory: Path, *, weights: int = 400, config: Mapping[str, object] | None = None) -> Path:
    """A directory with config.json, tokenizer.json and one safetensors file of that many bytes (a multiple of 4)."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    (directory / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [weights // 4], "data_offsets": [0, weights]}}).encode()
    (directory / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(weights))
    return directory


def write_adapter(directory: Path, *, weights: int = 400) -> Path:
    """A LoRA adapter's directory: adapter_config.json and one safetensors file of that many bytes."""
    write_model(directory, weights=weights)
    for name in ("config.json", "tokenizer.json"):
        (directory / name).unlink()
    (directory / "adapter_config.json").write_text("{}")
    (directory / "model.safetensors").rename(directory / "adapters.safetensors")
    return directory
