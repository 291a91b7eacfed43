"""The same models written down once more, in numpy and 64 bits, one text at a time and without any padding."""

from collections.abc import Sequence
from math import erf
from typing import Any

import numpy as np
from numpy.typing import NDArray

ERF = np.vectorize(erf)


def bert(
    weights: dict[str, NDArray[Any]], config: dict[str, Any], ids: list[int], types: Sequence[int] | None = None
) -> NDArray[Any]:
    """The last layer of BERT and of RoBERTa, ``[tokens, width]``."""
    first = 0 if config["model_type"] == "bert" else config["pad_token_id"] + 1
    types = [0] * len(ids) if types is None else types
    x = (
        weights["embeddings.word_embeddings.weight"][list(ids)]
        + weights["embeddings.position_embeddings.weight"][first : first + len(ids)]
        + weights["embeddings.token_type_embeddings.weight"][list(types)]
    )
    eps = config["layer_norm_eps"]
    x = norm(x, weights, "embeddings.LayerNorm", eps)
    for at in range(config["num_hidden_layers"]):
        place = f"encoder.layer.{at}."
        q, k, v = (linear(x, weights, f"{place}attention.self.{it}") for it in ("query", "key", "value"))
        seen = attention(q, k, v, config["num_attention_heads"], np.ones((len(ids), len(ids)), bool))
        x = norm(
            x + linear(seen, weights, place + "attention.output.dense"),
            weights,
            place + "attention.output.LayerNorm",
            eps,
        )
        wide = linear(x, weights, place + "intermediate.dense")
        wide = 0.5 * wide * (1 + ERF(wide / np.sqrt(2)))
        x = norm(x + linear(wide, weights, place + "output.dense"), weights, place + "output.LayerNorm", eps)
    return x


def bert_logit(
    weights: dict[str, NDArray[Any]], config: dict[str, Any], ids: list[int], types: list[int] | None = None
) -> np.float64:
    """What a classifier says of a pair."""
    first = bert(weights, config, ids, types)[:1]
    if config["model_type"] == "bert":
        return linear(np.tanh(linear(first, weights, "pooler.dense")), weights, "classifier")[0, 0]
    return linear(np.tanh(linear(first, weights, "classifier.dense")), weights, "classifier.out_proj")[0, 0]


def decoder(weights: dict[str, NDArray[Any]], config: dict[str, Any], ids: list[int]) -> NDArray[Any]:
    """The last layer of Qwen3, and of Gemma 3 whose attention goes both ways."""
    gemma = config["model_type"] == "gemma3_text"
    plus, eps, head = (1.0 if gemma else 0.0), config["rms_norm_eps"], config["head_dim"]

    def rms(x: NDArray[Any], name: str) -> NDArray[Any]:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * (plus + weights[name])

    x = weights["model.embed_tokens.weight"][list(ids)]
    if gemma:
        x = x * bfloat(config["hidden_size"] ** 0.5)
    apart = np.arange(len(ids))[:, None] - np.arange(len(ids))[None]
    for at in range(config["num_hidden_layers"]):
        place = f"model.layers.{at}."
        sliding = gemma and (at + 1) % config["sliding_window_pattern"] != 0
        mask = apart >= 0
        if gemma:
            mask = np.abs(apart) < (config["sliding_window"] // 2 + 1 if sliding else len(ids) + 1)
        normed = rms(x, place + "input_layernorm.weight")
        q, k, v = (normed @ weights[f"{place}self_attn.{it}_proj.weight"].T for it in "qkv")
        base = config["rope_local_base_freq"] if sliding else config["rope_theta"]
        q = rotated(rms(q.reshape(len(ids), -1, head), place + "self_attn.q_norm.weight"), base).reshape(len(ids), -1)
        k = rotated(rms(k.reshape(len(ids), -1, head), place + "self_attn.k_norm.weight"), base).reshape(len(ids), -1)
        repeats = config["num_attention_heads"] // config["num_key_value_heads"]
        k, v = (np.repeat(it.reshape(len(ids), -1, head), repeats, 1).reshape(len(ids), -1) for it in (k, v))
        seen = attention(q, k, v, config["num_attention_heads"], mask) @ weights[place + "self_attn.o_proj.weight"].T
        if gemma:
            x = x + rms(seen, place + "post_attention_layernorm.weight")
            normed = rms(x, place + "pre_feedforward_layernorm.weight")
        else:
            x = x + seen
            normed = rms(x, place + "post_attention_layernorm.weight")
        gate, up = (normed @ weights[f"{place}mlp.{it}_proj.weight"].T for it in ("gate", "up"))
        act = (
            0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
            if gemma
            else gate / (1 + np.exp(-gate))
        )
        down = (act * up) @ weights[place + "mlp.down_proj.weight"].T
        x = x + (rms(down, place + "post_feedforward_layernorm.weight") if gemma else down)
    return rms(x, "model.norm.weight")


def modernbert(weights: dict[str, NDArray[Any]], config: dict[str, Any], ids: list[int]) -> NDArray[Any]:
    """The last layer of ModernBERT."""
    eps, heads, tokens = config["norm_eps"], config["num_attention_heads"], len(ids)

    def normed(x: NDArray[Any], name: str) -> NDArray[Any]:
        bias = np.zeros(x.shape[-1])
        return norm(x, {"it.weight": weights[f"model.{name}.weight"], "it.bias": bias}, "it", eps)

    x = normed(weights["model.embeddings.tok_embeddings.weight"][list(ids)], "embeddings.norm")
    apart = np.abs(np.arange(tokens)[:, None] - np.arange(tokens)[None])
    for at in range(config["num_hidden_layers"]):
        place = f"layers.{at}."
        local = at % config["global_attn_every_n_layers"] != 0
        mask = apart <= config["local_attention"] // 2 if local else apart >= 0
        base = config["local_rope_theta" if local else "global_rope_theta"]
        q, k, v = np.split(
            (normed(x, place + "attn_norm") if at else x) @ weights[f"model.{place}attn.Wqkv.weight"].T, 3, 1
        )
        q, k = (rotated(it.reshape(tokens, heads, -1), base).reshape(tokens, -1) for it in (q, k))
        x = x + attention(q, k, v, heads, mask) @ weights[f"model.{place}attn.Wo.weight"].T
        wide, gate = np.split(normed(x, place + "mlp_norm") @ weights[f"model.{place}mlp.Wi.weight"].T, 2, 1)
        x = x + (gelu(wide) * gate) @ weights[f"model.{place}mlp.Wo.weight"].T
    return normed(x, "final_norm")


def modernbert_logit(weights: dict[str, NDArray[Any]], config: dict[str, Any], ids: list[int]) -> np.float64:
    """What its classifier says of a pair."""
    hidden = modernbert(weights, config, ids)
    x = hidden.mean(0) if config["classifier_pooling"] == "mean" else hidden[0]
    x = gelu(x @ weights["head.dense.weight"].T)
    named = {"it.weight": weights["head.norm.weight"], "it.bias": np.zeros(len(x))}
    return linear(norm(x, named, "it", config["norm_eps"]), weights, "classifier")[0]


def gelu(x: NDArray[Any]) -> NDArray[Any]:
    return 0.5 * x * (1 + ERF(x / np.sqrt(2)))


def pooled(hidden: NDArray[Any], mode: str) -> NDArray[Any]:
    """One text's tokens to its vector."""
    places = np.arange(1, len(hidden) + 1)[:, None]
    return {
        "cls": hidden[0],
        "lasttoken": hidden[-1],
        "max": hidden.max(0),
        "mean": hidden.mean(0),
        "mean_sqrt_len": hidden.sum(0) / np.sqrt(len(hidden)),
        "weightedmean": (hidden * places).sum(0) / places.sum(),
    }[mode]


def attention(q: NDArray[Any], k: NDArray[Any], v: NDArray[Any], heads: int, mask: NDArray[Any]) -> NDArray[Any]:
    """All heads; ``[tokens, width]`` each."""
    tokens, width = q.shape
    q, k, v = (it.reshape(tokens, heads, -1).transpose(1, 0, 2) for it in (q, k, v))
    scores = np.where(mask, q @ k.transpose(0, 2, 1) / np.sqrt(width // heads), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(tokens, width)


def linear(x: NDArray[Any], weights: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def norm(x: NDArray[Any], weights: dict[str, NDArray[Any]], name: str, eps: float) -> NDArray[Any]:
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weights[name + ".weight"]
        + weights[name + ".bias"]
    )


def rotated(x: NDArray[Any], base: float) -> NDArray[Any]:
    """Rotary positions of ``[tokens, heads, width]``, halves apart."""
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None] * base ** (-np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    left, right = x[..., :half], x[..., half:]
    return np.concatenate([left * cos - right * sin, left * sin + right * cos], -1)


def bfloat(number: float) -> float:
    """A number rounded to 16 bits as brains do, to the nearest even."""
    bits = int(np.float32(number).view(np.uint32))
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
    return float(np.uint32(rounded).view(np.float32))


def unit(x: NDArray[Any]) -> NDArray[Any]:
    return x / np.linalg.norm(x)


def sigmoid(x: np.float64) -> np.float64:
    return 1 / (1 + np.exp(-x))
