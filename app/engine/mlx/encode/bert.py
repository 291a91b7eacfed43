"""BERT, RoBERTa and XLM-RoBERTa, with the head of a classifier where the checkpoint has one.

The modules are named as the checkpoints' tensors are (transformers' ``BertModel`` and ``XLMRobertaModel``), so that
hardly any needs another name. RoBERTa counts positions from behind the padding's id, and pools with a head of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.models.base import BaseModelArgs

from app.engine.mlx.encode.attention import attend

ACTIVATIONS = {"gelu": nn.gelu, "gelu_new": nn.gelu_approx, "gelu_pytorch_tanh": nn.gelu_approx, "relu": nn.relu}
UNUSED = re.compile(r"(embeddings\.position_ids|pooler\.|cls\.|lm_head\.)")
"""Tensors that no vector is made of: buffers, and heads of the training. A classifier of BERT has a use for its pooler.
"""


@dataclass
class BertArgs(BaseModelArgs):
    """Fields of config.json, by transformers' names."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    pad_token_id: int = 0
    position_embedding_type: str = "absolute"
    architectures: list[str] | None = None

    def __post_init__(self) -> None:
        if self.position_embedding_type != "absolute":
            raise ValueError(f"its positions are {self.position_embedding_type}; only absolute ones are known here")
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"its activation {self.hidden_act!r} is not known here")

    @property
    def is_roberta(self) -> bool:
        """Whether it is of the other family."""
        return self.model_type != "bert"

    @property
    def first_position(self) -> int:
        """The position of a text's first token."""
        return self.pad_token_id + 1 if self.is_roberta else 0

    @property
    def is_classifier(self) -> bool:
        """Whether it has a head that scores pairs."""
        return any(name.endswith("ForSequenceClassification") for name in self.architectures or ())


class Embeddings(nn.Module):
    """Words, positions and segments."""

    def __init__(self, args: BertArgs) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(args.vocab_size, args.hidden_size)
        self.position_embeddings = nn.Embedding(args.max_position_embeddings, args.hidden_size)
        self.token_type_embeddings = nn.Embedding(args.type_vocab_size, args.hidden_size)
        self.LayerNorm = nn.LayerNorm(args.hidden_size, eps=args.layer_norm_eps)
        self._first = args.first_position

    def __call__(self, ids: mx.array, types: mx.array) -> mx.array:
        """``ids`` and ``types`` are ``[rows, tokens]``."""
        positions = mx.arange(self._first, self._first + ids.shape[1])
        found = self.word_embeddings(ids) + self.token_type_embeddings(types) + self.position_embeddings(positions)
        return self.LayerNorm(found)


class SelfAttention(nn.Module):
    """Every token sees every token of its row."""

    def __init__(self, args: BertArgs) -> None:
        super().__init__()
        self.query = nn.Linear(args.hidden_size, args.hidden_size)
        self.key = nn.Linear(args.hidden_size, args.hidden_size)
        self.value = nn.Linear(args.hidden_size, args.hidden_size)
        self._heads = args.num_attention_heads

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        """``mask`` is ``[rows, 1, 1, tokens]``, true where there is a token."""
        rows, tokens, width = x.shape
        queries, keys, values = (
            projected.reshape(rows, tokens, self._heads, -1).transpose(0, 2, 1, 3)
            for projected in (self.query(x), self.key(x), self.value(x))
        )
        seen = attend(queries, keys, values, mask, scale=(width // self._heads) ** -0.5)
        return seen.transpose(0, 2, 1, 3).reshape(rows, tokens, width)


class Added(nn.Module):
    """A matrix, what came before it added, normalised."""

    def __init__(self, args: BertArgs, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, args.hidden_size)
        self.LayerNorm = nn.LayerNorm(args.hidden_size, eps=args.layer_norm_eps)

    def __call__(self, x: mx.array, before: mx.array) -> mx.array:
        """``before`` is as wide as the model."""
        return self.LayerNorm(self.dense(x) + before)


class Attention(nn.Module):
    """Attention and what is added to it."""

    def __init__(self, args: BertArgs) -> None:
        super().__init__()
        self.self = SelfAttention(args)
        self.output = Added(args, args.hidden_size)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        """As :class:`SelfAttention`."""
        return self.output(self.self(x, mask), x)


class Intermediate(nn.Module):
    """The wide matrix."""

    def __init__(self, args: BertArgs) -> None:
        super().__init__()
        self.dense = nn.Linear(args.hidden_size, args.intermediate_size)
        self._activation = ACTIVATIONS[args.hidden_act]

    def __call__(self, x: mx.array) -> mx.array:
        """Activated."""
        return self._activation(self.dense(x))


class Layer(nn.Module):
    """One layer."""

    def __init__(self, args: BertArgs) -> None:
        super().__init__()
        self.attention = Attention(args)
        self.intermediate = Intermediate(args)
        self.output = Added(args, args.intermediate_size)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        """As :class:`SelfAttention`."""
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class Layers(nn.Module):
    """All of them."""

    def __init__(self, args: BertArgs) -> None:
        super().__init__()
        self.layer = [Layer(args) for _ in range(args.num_hidden_layers)]

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        """One after another."""
        for layer in self.layer:
            x = layer(x, mask)
        return x


class Pooler(nn.Module):
    """What BERT's classifiers look at: the first token, through a matrix."""

    def __init__(self, args: BertArgs) -> None:
        super().__init__()
        self.dense = nn.Linear(args.hidden_size, args.hidden_size)

    def __call__(self, hidden: mx.array) -> mx.array:
        """``[rows, width]``."""
        return mx.tanh(self.dense(hidden[:, 0]))


class RobertaHead(nn.Module):
    """RoBERTa's classifier: the first token, through two matrices."""

    def __init__(self, args: BertArgs) -> None:
        super().__init__()
        self.dense = nn.Linear(args.hidden_size, args.hidden_size)
        self.out_proj = nn.Linear(args.hidden_size, 1)

    def __call__(self, hidden: mx.array) -> mx.array:
        """``[rows, 1]``."""
        return self.out_proj(mx.tanh(self.dense(hidden[:, 0])))


class Bert(nn.Module):
    """The encoder; see :class:`app.engine.mlx.encode.encoders.Encoder` for what its methods are asked."""

    def __init__(self, args: BertArgs) -> None:
        super().__init__()
        self.embeddings = Embeddings(args)
        self.encoder = Layers(args)
        self._args = args
        if args.is_classifier:
            self.classifier = RobertaHead(args) if args.is_roberta else nn.Linear(args.hidden_size, 1)
            if not args.is_roberta:
                self.pooler = Pooler(args)

    @property
    def words(self) -> mx.array:
        """The rows of its tokens."""
        return self.embeddings.word_embeddings.weight

    def hidden(self, ids: mx.array, lengths: mx.array, types: mx.array) -> mx.array:
        """The last layer, ``[rows, tokens, width]``."""
        mask = (mx.arange(ids.shape[1])[None] < lengths[:, None])[:, None, None]
        return self.encoder(self.embeddings(ids, types), mask)

    def scores(self, ids: mx.array, lengths: mx.array, types: mx.array) -> mx.array:
        """The classifier's logit, ``[rows]``."""
        hidden = self.hidden(ids, lengths, types)
        return self.classifier(hidden if self._args.is_roberta else self.pooler(hidden))[:, 0]

    def sanitize(self, weights: dict[str, Any]) -> dict[str, Any]:
        """Without the name of the whole before each, without what has no use, by today's names."""
        kept = {}
        for name, array in weights.items():
            short = re.sub(r"^(bert|roberta|model)\.", "", name)
            short = short.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
            pooler = short.startswith("pooler.") and self._args.is_classifier and not self._args.is_roberta
            if pooler or not UNUSED.match(short):
                kept[short] = array
        return kept
