"""ModernBERT: rotary positions, gated layers, and in most of them attention to what is near.

The modules are named as the checkpoints' tensors are (transformers' ``ModernBertModel``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.models.base import BaseModelArgs

from app.engine.mlx.encode.attention import attend
from app.engine.mlx.encode.bert import ACTIVATIONS

UNUSED = re.compile(r"decoder\.")
"""The head of the training; a classifier has another."""


@dataclass
class ModernBertArgs(BaseModelArgs):
    """Fields of config.json, by transformers' names; newer files nest the bases of positions by type of layer."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    hidden_activation: str = "gelu"
    local_attention: int = 128
    global_attn_every_n_layers: int = 3
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0
    layer_types: list[str] | None = None
    rope_parameters: dict[str, Any] | None = None
    classifier_pooling: str = "cls"
    classifier_bias: bool = False
    classifier_activation: str = "gelu"
    architectures: list[str] | None = None

    def __post_init__(self) -> None:
        if not {self.hidden_activation, self.classifier_activation} <= ACTIVATIONS.keys():
            raise ValueError(f"its activation {self.hidden_activation!r} is not known here")
        nested = self.rope_parameters or {}
        self.global_rope_theta = nested.get("full_attention", {}).get("rope_theta", self.global_rope_theta)
        self.local_rope_theta = nested.get("sliding_attention", {}).get("rope_theta", self.local_rope_theta)
        if self.layer_types is None:
            every = self.global_attn_every_n_layers
            kinds = ("full_attention", "sliding_attention")
            self.layer_types = [kinds[bool(at % every)] for at in range(self.num_hidden_layers)]

    @property
    def is_classifier(self) -> bool:
        """Whether it has a head that scores pairs."""
        return any(name.endswith("ForSequenceClassification") for name in self.architectures or ())


def _norm(args: ModernBertArgs) -> nn.LayerNorm:
    return nn.LayerNorm(args.hidden_size, eps=args.norm_eps, bias=args.norm_bias)


class Embeddings(nn.Module):
    """Words alone: positions are turned into the keys."""

    def __init__(self, args: ModernBertArgs) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(args.vocab_size, args.hidden_size)
        self.norm = _norm(args)


class Attention(nn.Module):
    """Full, or within a window."""

    def __init__(self, args: ModernBertArgs, *, local: bool) -> None:
        super().__init__()
        self.Wqkv = nn.Linear(args.hidden_size, 3 * args.hidden_size, bias=args.attention_bias)
        self.Wo = nn.Linear(args.hidden_size, args.hidden_size, bias=args.attention_bias)
        self._heads = args.num_attention_heads
        width = args.hidden_size // args.num_attention_heads
        self.rope = nn.RoPE(width, base=args.local_rope_theta if local else args.global_rope_theta)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        """``mask`` is true where a key is seen."""
        rows, tokens, width = x.shape
        queries, keys, values = (
            part.reshape(rows, tokens, self._heads, -1).transpose(0, 2, 1, 3)
            for part in mx.split(self.Wqkv(x), 3, axis=-1)
        )
        seen = attend(self.rope(queries), self.rope(keys), values, mask, scale=(width // self._heads) ** -0.5)
        return self.Wo(seen.transpose(0, 2, 1, 3).reshape(rows, tokens, width))


class Gated(nn.Module):
    """The wide matrices."""

    def __init__(self, args: ModernBertArgs) -> None:
        super().__init__()
        self.Wi = nn.Linear(args.hidden_size, 2 * args.intermediate_size, bias=args.mlp_bias)
        self.Wo = nn.Linear(args.intermediate_size, args.hidden_size, bias=args.mlp_bias)
        self._activation = ACTIVATIONS[args.hidden_activation]

    def __call__(self, x: mx.array) -> mx.array:
        """As wide as the model."""
        wide, gate = mx.split(self.Wi(x), 2, axis=-1)
        return self.Wo(self._activation(wide) * gate)


class Layer(nn.Module):
    """One layer; the first does not normalise what the embeddings have normalised."""

    def __init__(self, args: ModernBertArgs, at: int) -> None:
        super().__init__()
        self._local = (args.layer_types or [])[at] == "sliding_attention"
        self.attn_norm = _norm(args) if at else nn.Identity()
        self.attn = Attention(args, local=self._local)
        self.mlp_norm = _norm(args)
        self.mlp = Gated(args)

    def __call__(self, x: mx.array, full: mx.array, near: mx.array) -> mx.array:
        """With the masks of both kinds of attention."""
        x = x + self.attn(self.attn_norm(x), near if self._local else full)
        return x + self.mlp(self.mlp_norm(x))


class Head(nn.Module):
    """What a classifier looks through."""

    def __init__(self, args: ModernBertArgs) -> None:
        super().__init__()
        self.dense = nn.Linear(args.hidden_size, args.hidden_size, bias=args.classifier_bias)
        self.norm = _norm(args)
        self._activation = ACTIVATIONS[args.classifier_activation]

    def __call__(self, x: mx.array) -> mx.array:
        """``[rows, width]``."""
        return self.norm(self._activation(self.dense(x)))


class ModernBert(nn.Module):
    """The encoder; see :class:`app.engine.mlx.encode.encoders.Encoder` for what its methods are asked."""

    def __init__(self, args: ModernBertArgs) -> None:
        super().__init__()
        self.embeddings = Embeddings(args)
        self.layers = [Layer(args, at) for at in range(args.num_hidden_layers)]
        self.final_norm = _norm(args)
        self._args = args
        if args.is_classifier:
            self.head = Head(args)
            self.classifier = nn.Linear(args.hidden_size, 1)

    @property
    def words(self) -> mx.array:
        """The rows of its tokens."""
        return self.embeddings.tok_embeddings.weight

    def hidden(self, ids: mx.array, lengths: mx.array, types: mx.array) -> mx.array:  # noqa: ARG002
        """The last layer, ``[rows, tokens, width]``. What is padding sees itself, so that it stays a number."""
        places = mx.arange(ids.shape[1])
        full = (places[None] < lengths[:, None])[:, None, None]
        apart = mx.abs(places[:, None] - places[None])
        near = (full & (apart <= self._args.local_attention // 2)) | (apart == 0)
        x = self.embeddings.norm(self.embeddings.tok_embeddings(ids))
        for layer in self.layers:
            x = layer(x, full, near)
        return self.final_norm(x)

    def scores(self, ids: mx.array, lengths: mx.array, types: mx.array) -> mx.array:
        """The classifier's logit, ``[rows]``."""
        hidden = self.hidden(ids, lengths, types)
        first = hidden[:, 0]
        if self._args.classifier_pooling == "mean":
            real = (mx.arange(ids.shape[1])[None] < lengths[:, None])[..., None]
            first = mx.sum(mx.where(real, hidden, 0.0), axis=1) / lengths[:, None]
        return self.classifier(self.head(first))[:, 0]

    def sanitize(self, weights: dict[str, Any]) -> dict[str, Any]:
        """Without the name of the whole before each, without what has no use."""
        named = {name.removeprefix("model."): array for name, array in weights.items()}
        unused = UNUSED if self._args.is_classifier else re.compile(r"decoder\.|head\.|classifier\.")
        return {name: array for name, array in named.items() if not unused.match(name)}
