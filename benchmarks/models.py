"""Random-weight llamas as model directories, by the name of their shape; speed does not depend on the weights.

``python -m benchmarks.models HOME NAME`` makes HOME/NAME on this machine's device. A tied embedding or head whose
logits have the standard deviation ``spread`` makes distributions as peaked as a language model's (3) or nearly flat
(1). The rows of special tokens are zero, so that no text ends before its length.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks import large_tokenizer, session_models

_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_BOS, _EOS = 1, 2
_SHARD = 4 << 30
_GAIN = 1.5
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXT = (
    "The quick brown fox jumps over the lazy dog, and the dog barks at the fox in the evening. "
    "A model reads a prompt and writes an answer, one token after the other, until it stops. "
    "Tell me in a few words about the north and the south, about rivers, mountains, harbours, gardens and stations. "
)


class Shape(msgspec.Struct, frozen=True):
    """A llama's sizes. ``tied``: the head is the embedding; ``seed`` tells models of one shape apart.

    ``large_tokenizer`` gives it gpt-oss's, which takes longer to read than everything else of a small model.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    vocabulary: int
    dtype: str
    tied: bool = True
    spread: float = 3.0
    context: int = 8192
    seed: int = 0
    large_tokenizer: bool = False


_W64 = Shape(64, 4, 4, 2, 128, 49152, "float32")
_135M = Shape(576, 30, 9, 3, 1536, 49152, "bfloat16")

SHAPES = {
    "w64": _W64,
    "w64-flat": msgspec.structs.replace(_W64, spread=1.0),
    "w64-other": msgspec.structs.replace(_W64, seed=1),
    "w64-third": msgspec.structs.replace(_W64, seed=2),
    "w64-fourth": msgspec.structs.replace(_W64, seed=3),
    "w64-large": msgspec.structs.replace(_W64, vocabulary=large_tokenizer.VOCABULARY, large_tokenizer=True),
    "w64-large-other": msgspec.structs.replace(
        _W64, vocabulary=large_tokenizer.VOCABULARY, large_tokenizer=True, seed=1
    ),
    "135m": _135M,
    "8b": Shape(4096, 32, 32, 8, 14336, 128256, "bfloat16", tied=False),
}


def make(home: Path, name: str) -> Path:
    """The directory of the shape ``name`` below ``home``, written unless it is there already."""
    directory, shape = home / name, SHAPES[name]
    written = directory / "shape.json"
    if written.exists() and written.read_bytes() == msgspec.json.encode(shape):
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for file, content in _tokenizer(shape).items():
        (directory / file).write_bytes(content)
    (directory / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(_config(shape))))
    _write_weights(directory, shape)
    written.write_bytes(msgspec.json.encode(shape))
    return directory


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.context,
        "vocab_size": shape.vocabulary,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": large_tokenizer.BOS if shape.large_tokenizer else _BOS,
        "eos_token_id": large_tokenizer.EOS if shape.large_tokenizer else _EOS,
        "torch_dtype": shape.dtype,
    }


def _write_weights(directory: Path, shape: Shape) -> None:
    """In files of at most 4 GiB, so that memory holds one file's tensors beside nothing else."""
    import mlx.core as mx  # noqa: PLC0415  the harness itself holds no device

    mx.random.seed(shape.seed)
    dtype = getattr(mx, shape.dtype)
    files, size = 0, 0
    tensors: dict[str, mx.array] = {}
    where: dict[str, str] = {}

    def flush() -> None:
        nonlocal files, tensors, size
        files += 1
        file = f"model-{files:05d}.safetensors"
        mx.save_safetensors(str(directory / file), tensors, metadata={"format": "mlx"})
        where.update(dict.fromkeys(tensors, file))
        tensors, size = {}, 0

    for name, sizes in _tensors(shape):
        if len(sizes) == 1:
            tensor = mx.ones(sizes, dtype)
        else:
            vocabulary = sizes[0] == shape.vocabulary
            std = (shape.spread if vocabulary else _GAIN) / sizes[1] ** 0.5
            tensor = mx.random.normal(sizes, dtype=dtype, scale=std)
            if vocabulary:
                tensor[: len(_SPECIALS)] = 0
        mx.eval(tensor)
        tensors[name] = tensor
        size += tensor.nbytes
        if size >= _SHARD:
            flush()
    if tensors:
        flush()
    index = {"metadata": {"format": "mlx"}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_bytes(msgspec.json.encode(index))


def _tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and sizes of a llama's weights, as mlx-lm's model of that name wants them."""
    head = shape.width // shape.heads
    yield "model.embed_tokens.weight", (shape.vocabulary, shape.width)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.self_attn.q_proj.weight", (shape.heads * head, shape.width)
        yield f"{prefix}.self_attn.k_proj.weight", (shape.kv_heads * head, shape.width)
        yield f"{prefix}.self_attn.v_proj.weight", (shape.kv_heads * head, shape.width)
        yield f"{prefix}.self_attn.o_proj.weight", (shape.width, shape.heads * head)
        yield f"{prefix}.mlp.gate_proj.weight", (shape.hidden, shape.width)
        yield f"{prefix}.mlp.up_proj.weight", (shape.hidden, shape.width)
        yield f"{prefix}.mlp.down_proj.weight", (shape.width, shape.hidden)
        yield f"{prefix}.input_layernorm.weight", (shape.width,)
        yield f"{prefix}.post_attention_layernorm.weight", (shape.width,)
    yield "model.norm.weight", (shape.width,)
    if not shape.tied:
        yield "lm_head.weight", (shape.vocabulary, shape.width)


def _tokenizer(shape: Shape) -> dict[str, bytes]:
    """A byte-level BPE of some hundred merges, filled up to the vocabulary's size with words that no merge reaches."""
    if shape.large_tokenizer:
        files = large_tokenizer.files()
        config = msgspec.json.decode(files["tokenizer_config.json"]) | {"chat_template": _TEMPLATE}
        return files | {"tokenizer_config.json": msgspec.json.encode(config)}
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=list(_SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    described = msgspec.json.decode(tokenizer.to_str())
    vocabulary = described["model"]["vocab"]
    for token in range(len(vocabulary), shape.vocabulary):
        vocabulary[f"\u0120w{token}"] = token
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.context,
        "bos_token": _SPECIALS[_BOS],
        "eos_token": _SPECIALS[_EOS],
        "pad_token": _SPECIALS[_EOS],
        "chat_template": _TEMPLATE,
    }
    return {"tokenizer.json": msgspec.json.encode(described), "tokenizer_config.json": msgspec.json.encode(config)}


def smollm2(home: Path) -> Path:
    """SmolLM2-135M-Instruct in float32, out of the package that carries it."""
    from app.engine.mlx.load.smollm2 import ensure_smollm2  # noqa: PLC0415

    return ensure_smollm2(home, dense=True)


if __name__ == "__main__":
    _home, _name = Path(sys.argv[1]), sys.argv[2]
    if _name in session_models.STATES:
        print(session_models.make(_home, _name))
    else:
        print(smollm2(_home) if _name == "smollm2" else make(_home, _name))
