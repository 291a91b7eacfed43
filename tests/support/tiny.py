"""Random-weight models for tests: real directories, with a real tokenizer, made in under a second.

``words`` carries a byte-level BPE of a few hundred tokens and suits unit tests; ``smollm2`` carries the embedded
model's tokenizer (49,152 tokens) and suits measurements, where the vocabulary's size is what counts.
"""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import msgspec
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from app.engine.mlx.load import smollm2
from app.engine.mlx.load.gguf import GGUFTokenizer

Vocabulary = Literal["words", "smollm2"]

_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_BOS, _EOS = 1, 2
_HEAD = 16
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXT = (
    "The quick brown fox jumps over the lazy dog, and the dog barks at the fox in the evening.",
    "A model reads a prompt and writes an answer, one token after the other, until it stops.",
    "Numbers: 0 1 2 3 4 5 6 7 8 9. Names: Paris, London, Rome. Grüße, café, naïve, 日本語, 🙂.",
)


def make_tiny(
    directory: Path,
    *,
    seed: int,
    width: int = 64,
    layers: int = 2,
    vocabulary: Vocabulary = "words",
    context: int = 2048,
    config: dict[str, Any] | None = None,
    specials: tuple[str, ...] = (),
) -> Path:
    """Write a llama into ``directory``; the same arguments give the same bytes.

    ``config`` overrides config.json, ``specials`` are more special tokens for ``words``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = _words_files(context, specials) if vocabulary == "words" else _smollm2_files()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    size = len(msgspec.json.decode(files["tokenizer.json"])["model"]["vocab"])
    described = _config(width, layers, size, context) | ({} if config is None else config)
    (directory / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(described)))
    weights = _weights(np.random.default_rng(seed), width, layers, size)
    mx.save_safetensors(str(directory / "model.safetensors"), weights, metadata={"format": "mlx"})
    return directory


def make_uneven(directory: Path) -> Path:
    """Write a Qwen2 whose three heads of keys and values two ranks cannot share, but whose layers can be handed on."""
    make_tiny(directory, seed=0, width=96, layers=2, config={"model_type": "qwen2"})
    file = str(directory / "model.safetensors")
    weights: Any = mx.load(file)
    mx.random.seed(1)
    for name in [name for name in weights if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))]:
        weights[name.replace("weight", "bias")] = 0.1 * mx.random.normal((weights[name].shape[0],))
    mx.save_safetensors(file, weights, metadata={"format": "mlx"})
    return directory


@cache
def tiny(seed: int = 0, *, width: int = 64, layers: int = 2, vocabulary: Vocabulary = "words") -> Path:
    """The same, made once in this process and removed at its end. Read only: others use it too."""
    root = Path(tempfile.mkdtemp(prefix="tiny-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return make_tiny(root / f"tiny-{seed}", seed=seed, width=width, layers=layers, vocabulary=vocabulary)


def _config(width: int, layers: int, vocabulary: int, context: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // _HEAD,
        "num_key_value_heads": width // _HEAD // 2,
        "max_position_embeddings": context,
        "vocab_size": vocabulary,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": _BOS,
        "eos_token_id": _EOS,
        "torch_dtype": "float32",
    }


def _weights(rng: np.random.Generator, width: int, layers: int, vocabulary: int) -> dict[str, mx.array]:
    keys = width // 2
    shapes = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (2 * width, width),
        "mlp.up_proj": (2 * width, width),
        "mlp.down_proj": (width, 2 * width),
    }

    def drawn(shape: tuple[int, int]) -> mx.array:
        values = rng.standard_normal(shape, dtype=np.float32) * np.float32(1.5 / shape[1] ** 0.5)
        return mx.array(values)

    weights = {"model.embed_tokens.weight": drawn((vocabulary, width)), "model.norm.weight": mx.ones(width)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        weights |= {f"{prefix}.{name}.weight": drawn(shape) for name, shape in shapes.items()}
        weights |= {
            f"{prefix}.{name}.weight": mx.ones(width) for name in ("input_layernorm", "post_attention_layernorm")
        }
    return weights


@cache
def _words_files(context: int, specials: tuple[str, ...]) -> dict[str, bytes]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=[*_SPECIALS, *specials],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    names = {"bos_token": _SPECIALS[_BOS], "eos_token": _SPECIALS[_EOS], "pad_token": _SPECIALS[_EOS]}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "chat_template": _TEMPLATE,
        **names,
    }
    return {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": msgspec.json.encode(config)}


@cache
def _smollm2_files() -> dict[str, bytes]:
    loaded: Any = mx.load(str(smollm2._published()), return_metadata=True)
    return GGUFTokenizer.read(loaded[1]).files()
