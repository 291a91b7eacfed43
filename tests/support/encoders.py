"""Random-weight models that make vectors and scores: real directories, made in a moment."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors

_TEXT = """
the a fox dog cat runs sleeps barks over under lazy quick brown red blue one two three four five query document
search instruct yes no true false paris london rome capital france of is in what where who
"""
WORDS = tuple(_TEXT.split())
PAD, UNK, FIRST, LAST = 0, 1, 2, 3
"""Special tokens; RoBERTa's padding has id 1 and the unknown token id 0."""
WIDTH, LAYERS, HEADS, POSITIONS = 32, 2, 4, 64
Weights = dict[str, np.ndarray]


def write_tokenizer(directory: Path, family: str = "bert", *, ends: bool = True) -> int:
    """A word-level tokenizer.json with the family's template for texts and pairs; how many tokens it has.

    It asks for truncation and padding, as files of sentence-transformers do. A decoder's adds one token behind the text
    if ``ends``.
    """
    special = ["<unk>", "<pad>", "<s>", "</s>"] if family == "roberta" else ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    special += ["<|im_start|>", "<|im_end|>"]
    vocabulary = {word: at for at, word in enumerate([*special, *WORDS, ".", ",", ":", "<", ">", '"', "think", "/"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[0] if family == "roberta" else special[1]))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    first, last = special[FIRST], special[LAST]
    ends_of = [(first, FIRST), (last, LAST)]
    if family == "bert":
        pair = f"{first}:0 $A:0 {last}:0 $B:1 {last}:1"
        tokenizer.post_processor = processors.TemplateProcessing(f"{first} $A {last}", pair, ends_of)
    elif family == "roberta":
        pair = f"{first} $A {last} {last} $B {last}"
        tokenizer.post_processor = processors.TemplateProcessing(f"{first} $A {last}", pair, ends_of)
    elif ends:
        tokenizer.post_processor = processors.TemplateProcessing(f"$A {last}", f"$A $B {last}", ends_of)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    return len(vocabulary)


def make_bert(
    directory: Path, *, family: str = "bert", seed: int = 0, classifier: bool = False, prefix: str = "", **config: Any
) -> Path:
    """A BERT or XLM-RoBERTa; with a ``classifier`` a reranker. ``config`` overrides config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(directory, family)
    roberta = family == "roberta"
    named = "XLMRoberta" if roberta else "Bert"
    described = {
        "model_type": "xlm-roberta" if roberta else "bert",
        "architectures": [f"{named}ForSequenceClassification" if classifier else f"{named}Model"],
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": POSITIONS + (2 if roberta else 0),
        "type_vocab_size": 1 if roberta else 2,
        "layer_norm_eps": 1e-5 if roberta else 1e-12,
        "hidden_act": "gelu",
        "pad_token_id": 1 if roberta else 0,
    } | config
    if classifier:
        described |= {"id2label": {"0": "LABEL_0"}}
    write_config(directory, described)
    weights = bert_weights(np.random.default_rng(seed), described, classifier=classifier)
    save(
        directory / "model.safetensors", {prefix + it if "classifier" not in it else it: w for it, w in weights.items()}
    )
    return directory


def bert_weights(rng: np.random.Generator, config: dict[str, Any], *, classifier: bool) -> Weights:
    width, wide = config["hidden_size"], config["intermediate_size"]
    made: Weights = {
        "embeddings.word_embeddings.weight": rng.normal(0, 1, (config["vocab_size"], width)),
        "embeddings.position_embeddings.weight": rng.normal(0, 1, (config["max_position_embeddings"], width)),
        "embeddings.token_type_embeddings.weight": rng.normal(0, 1, (config["type_vocab_size"], width)),
        "embeddings.position_ids": np.zeros((1, 4)),
    }
    made |= _norm(rng, "embeddings.LayerNorm", width)
    for at in range(config["num_hidden_layers"]):
        place = f"encoder.layer.{at}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            made |= _linear(rng, place + name, width, width)
        made |= _linear(rng, place + "intermediate.dense", width, wide)
        made |= _linear(rng, place + "output.dense", wide, width)
        made |= _norm(rng, place + "attention.output.LayerNorm", width) | _norm(rng, place + "output.LayerNorm", width)
    made |= _linear(rng, "pooler.dense", width, width)
    if classifier and config["model_type"] == "bert":
        made |= _linear(rng, "classifier", width, 1)
    elif classifier:
        del made["pooler.dense.weight"], made["pooler.dense.bias"]
        made |= _linear(rng, "classifier.dense", width, width) | _linear(rng, "classifier.out_proj", width, 1)
    return made


def make_modernbert(directory: Path, *, seed: int = 0, classifier: bool = False, **config: Any) -> Path:
    """A ModernBERT whose second layer sees what is near."""
    directory.mkdir(parents=True, exist_ok=True)
    described: dict[str, Any] = {
        "model_type": "modernbert",
        "architectures": ["ModernBertForSequenceClassification" if classifier else "ModernBertModel"],
        "vocab_size": write_tokenizer(directory, "bert"),
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
        "norm_eps": 1e-5,
        "local_attention": 8,
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
    } | config
    write_config(directory, described | ({"id2label": {"0": "LABEL_0"}} if classifier else {}))
    rng = np.random.default_rng(seed)
    made = {
        "model.embeddings.tok_embeddings.weight": rng.normal(0, 1, (described["vocab_size"], WIDTH)),
        "model.embeddings.norm.weight": 1 + rng.normal(0, 0.1, WIDTH),
        "model.final_norm.weight": 1 + rng.normal(0, 0.1, WIDTH),
    }
    for at in range(LAYERS):
        for name, wide, out in (
            ("attn.Wqkv", WIDTH, 3 * WIDTH),
            ("attn.Wo", WIDTH, WIDTH),
            ("mlp.Wi", WIDTH, 96),
            ("mlp.Wo", 48, WIDTH),
        ):
            made[f"model.layers.{at}.{name}.weight"] = rng.normal(0, wide**-0.5, (out, wide))
        for name in ("attn_norm", "mlp_norm") if at else ("mlp_norm",):
            made[f"model.layers.{at}.{name}.weight"] = 1 + rng.normal(0, 0.1, WIDTH)
    made |= {"head.dense.weight": rng.normal(0, 0.2, (WIDTH, WIDTH)), "head.norm.weight": 1 + rng.normal(0, 0.1, WIDTH)}
    made |= _linear(rng, "classifier", WIDTH, 1) if classifier else {"decoder.bias": np.zeros(3)}
    save(directory / "model.safetensors", made)
    return directory


def make_decoder(
    directory: Path, *, family: str = "qwen3", seed: int = 0, headless: bool = False, ends: bool = True, **config: Any
) -> Path:
    """A Qwen3, or a Gemma 3 whose attention goes both ways; ``headless`` names tensors as embedders' files do."""
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(directory, "decoder", ends=ends)
    rng, head = np.random.default_rng(seed), 8
    described: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
        "head_dim": head,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    }
    if family == "qwen3":
        described |= {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
    else:
        described |= {
            "model_type": "gemma3_text",
            "architectures": ["Gemma3TextModel"],
            "use_bidirectional_attention": True,
            "sliding_window": 8,
            "sliding_window_pattern": 2,
            "query_pre_attn_scalar": 8,
            "rope_local_base_freq": 1000.0,
        }
    write_config(directory, described | config)
    made = {"model.embed_tokens.weight": rng.normal(0, 1, (vocabulary, WIDTH))}
    norms = ["input_layernorm", "post_attention_layernorm"]
    norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"] if family != "qwen3" else []
    for at in range(LAYERS):
        place = f"model.layers.{at}."
        for name, wide, out in (
            ("self_attn.q_proj", WIDTH, HEADS * head),
            ("self_attn.k_proj", WIDTH, 2 * head),
            ("self_attn.v_proj", WIDTH, 2 * head),
            ("self_attn.o_proj", HEADS * head, WIDTH),
            ("mlp.gate_proj", WIDTH, 2 * WIDTH),
            ("mlp.up_proj", WIDTH, 2 * WIDTH),
            ("mlp.down_proj", 2 * WIDTH, WIDTH),
        ):
            made[f"{place}{name}.weight"] = rng.normal(0, wide**-0.5, (out, wide))
        for name in norms:
            made[f"{place}{name}.weight"] = 1 + rng.normal(0, 0.1, WIDTH)
        for name in ("self_attn.q_norm", "self_attn.k_norm"):
            made[f"{place}{name}.weight"] = 1 + rng.normal(0, 0.1, head)
    made["model.norm.weight"] = 1 + rng.normal(0, 0.1, WIDTH)
    cut = "model." if headless else ""
    save(directory / "model.safetensors", {name.removeprefix(cut): array for name, array in made.items()})
    return directory


def add_modules(
    directory: Path, *steps: tuple[str, dict[str, Any]], package: str = "sentence_transformers.models"
) -> Path:
    """modules.json and the folders of its steps, each by its class's name."""
    modules = [{"idx": 0, "name": "0", "path": "", "type": f"{package}.Transformer"}]
    for at, (name, config) in enumerate(steps, 1):
        path = f"{at}_{name}"
        (directory / path).mkdir()
        (directory / path / "config.json").write_text(json.dumps(config))
        modules.append({"idx": at, "name": str(at), "path": path, "type": f"{package}.{name}"})
    (directory / "modules.json").write_text(json.dumps(modules))
    return directory


def add_dense(directory: Path, path: str, wide: int, narrow: int, *, seed: int, bias: bool = True) -> None:
    """The weights of a step ``Dense``."""
    made = _linear(np.random.default_rng(seed), "linear", wide, narrow)
    save(directory / path / "model.safetensors", made if bias else {"linear.weight": made["linear.weight"]})


def write_config(directory: Path, config: dict[str, Any]) -> None:
    (directory / "config.json").write_text(json.dumps(config))


def save(file: Path, weights: Weights) -> None:
    mx.save_safetensors(str(file), {name: mx.array(array.astype(np.float32)) for name, array in weights.items()})


def read(file: Path) -> Weights:
    """A file's tensors in 64 bits."""
    return {name: np.array(array).astype(np.float64) for name, array in mx.load(str(file)).items()}


def _linear(rng: np.random.Generator, name: str, wide: int, out: int) -> Weights:
    return {f"{name}.weight": rng.normal(0, wide**-0.5, (out, wide)), f"{name}.bias": rng.normal(0, 0.1, out)}


def _norm(rng: np.random.Generator, name: str, width: int) -> Weights:
    return {f"{name}.weight": 1 + rng.normal(0, 0.1, width), f"{name}.bias": rng.normal(0, 0.1, width)}
