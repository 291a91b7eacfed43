"""mlx-lm's decoders as encoders: without their heads, and for EmbeddingGemma without causality.

Rows are padded on the right, where a causal decoder's earlier tokens never look.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.utils import _get_classes

from app.engine.mlx.encode.attention import attend

HEADED = ("model.", "lm_head.", "score.")


class Headless:
    """The last layer of an mlx-lm decoder."""

    def __init__(self, model: Any) -> None:
        self.model = model
        body = model.get("model")
        if not isinstance(body, nn.Module):
            raise TypeError("it is built in a way that vectors cannot be taken from")
        self._body: Any = body

    def hidden(self, ids: mx.array, lengths: mx.array, types: mx.array) -> mx.array:  # noqa: ARG002
        """The last layer, ``[rows, tokens, width]``."""
        hidden: mx.array = self._body(ids)
        return hidden


class BidirectionalGemma(Headless):
    """Gemma 3 as EmbeddingGemma uses it: every token sees every token, in most layers those nearby."""

    def hidden(self, ids: mx.array, lengths: mx.array, types: mx.array) -> mx.array:  # noqa: ARG002
        """The last layer, ``[rows, tokens, width]``. What is padding sees itself, so that it stays a number."""
        body, args = self._body, self._body.args
        places = mx.arange(ids.shape[1])
        real = (places[None] < lengths[:, None])[:, None, None]
        apart = mx.abs(places[:, None] - places[None])
        near = (real & (apart < args.sliding_window // 2 + 1)) | (apart == 0)
        h = body.embed_tokens(ids)
        h = h * mx.array(args.hidden_size**0.5, mx.bfloat16).astype(h.dtype)
        for layer in body.layers:
            attention = layer.self_attn
            mask = near if attention.is_sliding else real
            seen = layer.post_attention_layernorm(_gemma_attention(attention, layer.input_layernorm(h), mask))
            h = h + seen
            h = h + layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(h)))
        hidden: mx.array = body.norm(h)
        return hidden


def _gemma_attention(attention: Any, x: mx.array, mask: mx.array) -> mx.array:
    rows, tokens, _ = x.shape
    queries = attention.q_proj(x).reshape(rows, tokens, attention.n_heads, -1).transpose(0, 2, 1, 3)
    keys = attention.k_proj(x).reshape(rows, tokens, attention.n_kv_heads, -1).transpose(0, 2, 1, 3)
    values = attention.v_proj(x).reshape(rows, tokens, attention.n_kv_heads, -1).transpose(0, 2, 1, 3)
    queries, keys = attention.rope(attention.q_norm(queries)), attention.rope(attention.k_norm(keys))
    seen = attend(queries, keys, values, mask, scale=attention.scale)
    return attention.o_proj(seen.transpose(0, 2, 1, 3).reshape(rows, tokens, -1))


def headless_classes(config: dict[str, Any]) -> tuple[type[Any], type[Any]]:
    """mlx-lm's classes for a configuration, for ``load_model``: without the head, whatever the tensors are called.

    Checkpoints of embedders are often saved without the name of the whole before each tensor.
    """
    known, args = _get_classes(config)

    class WithoutHead(known):  # type: ignore[misc, valid-type]
        def sanitize(self, weights: dict[str, Any]) -> dict[str, Any]:
            named = {it if it.startswith(HEADED) else f"model.{it}": array for it, array in weights.items()}
            given = super().sanitize(named) if "sanitize" in dir(known) else named
            self.pop("lm_head", None)
            return {it: array for it, array in given.items() if not it.startswith("lm_head.")}

    return WithoutHead, args
