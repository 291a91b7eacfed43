"""Small models of random weights for sessions: a plain one, two with sliding windows, two hybrids.

``python -m benchmarks.session_models HOME KIND`` makes HOME/KIND. A token is a character of printable ASCII, so that
what a model says is read again as the same tokens, whatever its weights. Special tokens are never drawn.
"""

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHARACTERS = "\n" + "".join(map(chr, range(0x20, 0x7F)))
CONTEXT = 65536
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FAMILIES = {
    "plain": "llama",
    "gemma3": "gemma3_text",
    "gpt_oss": "gpt_oss",
    "qwen3_next": "qwen3_next",
    "granite_h": "granitemoehybrid",
}
STATES = {"mamba2": "mamba2"}
"""Without any attention; no sessions are measured on it."""
LAYERS = 2
"""One of each kind; attention over tens of thousands of tokens takes a CPU long."""
WINDOW = 128
"""Tokens: gpt-oss's own; Gemma 3 has 512 or more, which a small scale would not fill."""


def make(home: Path, kind: str) -> Path:
    """The directory of the model ``kind`` below ``home``, written unless it is there already."""
    from tests.engine.families.configs import config  # noqa: PLC0415  the same small models that the families' bench has

    directory, family = home / kind, (FAMILIES | STATES)[kind]
    size = len(SPECIALS) + len(CHARACTERS)
    described = config(family) | {"vocab_size": size, "max_position_embeddings": CONTEXT, "torch_dtype": "float32"}
    described |= {"sliding_window": WINDOW, "bos_token_id": 0, "eos_token_id": 2}
    described |= {"num_hidden_layers": LAYERS, "num_attention_heads": 2, "num_key_value_heads": 1}
    if "mamba_d_head" in described:
        described["mamba_expand"] = described["mamba_n_heads"] * described["mamba_d_head"] // described["hidden_size"]
    if "layer_types" in described:
        described["layer_types"] = described["layer_types"][:LAYERS]
    said = msgspec.json.format(msgspec.json.encode(described))
    written = directory / "config.json"
    if written.exists() and written.read_bytes() == said:
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    _write_weights(directory, family, described)
    for file, content in _tokenizer().items():
        (directory / file).write_bytes(content)
    written.write_bytes(said)
    return directory


def _write_weights(directory: Path, family: str, described: dict[str, Any]) -> None:
    import mlx.core as mx  # noqa: PLC0415  the harness itself holds no device
    import numpy as np  # noqa: PLC0415
    from mlx.utils import tree_flatten  # noqa: PLC0415

    module = importlib.import_module(f"mlx_lm.models.{family}")
    model = module.Model(module.ModelArgs.from_dict(described))
    rng, weights = np.random.default_rng(7), {}
    for name, value in tree_flatten(model.parameters()):
        if value.ndim >= 2:
            drawn = rng.standard_normal(value.shape, dtype=np.float32) * np.float32(1.5 / value.shape[-1] ** 0.5)
            if value.shape[0] == described["vocab_size"]:
                drawn[: len(SPECIALS)] = 0  # beside drawn logits their own, 0, are never the greatest
            weights[name] = mx.array(drawn)
        else:
            weights[name] = value.astype(mx.float32)
    mx.save_safetensors(str(directory / "model.safetensors"), weights, metadata={"format": "mlx"})


def _tokenizer() -> dict[str, bytes]:
    """Byte-level without a merge."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415

    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = ["".join(piece for piece, _ in spelled.pre_tokenize_str(letter)) for letter in CHARACTERS]
    vocabulary = {token: number for number, token in enumerate([*SPECIALS, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = spelled
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "bos_token": SPECIALS[0],
        "eos_token": SPECIALS[2],
        "pad_token": SPECIALS[2],
        "chat_template": TEMPLATE,
    }
    return {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": msgspec.json.encode(config)}


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), sys.argv[2]))
