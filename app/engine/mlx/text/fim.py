"""Fill in the middle: the formats that code models were trained with, told by their special tokens."""

from collections.abc import Callable, Mapping

FORMATS = (
    ("<|fim_prefix|>", "{prefix}", "<|fim_suffix|>", "{suffix}", "<|fim_middle|>"),  # Qwen-Coder, CodeGemma
    ("<fim_prefix>", "{prefix}", "<fim_suffix>", "{suffix}", "<fim_middle>"),  # StarCoder, Granite Code
    ("<fim-prefix>", "{prefix}", "<fim-suffix>", "{suffix}", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "{prefix}", "<｜fim▁hole｜>", "{suffix}", "<｜fim▁end｜>"),  # DeepSeek-Coder
    ("▁<PRE>", "{prefix}", "▁<SUF>", "{suffix}", "▁<MID>"),  # Code Llama
    ("[SUFFIX]", "{suffix}", "[PREFIX]", "{prefix}"),  # Codestral
)
"""Pieces in the order in which the model expects them; what is not in braces is one token."""


def fill_in_middle(
    prefix: str, suffix: str, vocabulary: Mapping[str, int], encode: Callable[[str], list[int]]
) -> list[int] | None:
    """The prompt in the first format whose tokens are all in ``vocabulary``; None if there is none."""
    texts = {"{prefix}": prefix, "{suffix}": suffix}
    for pieces in FORMATS:
        if all(piece in texts or piece in vocabulary for piece in pieces):
            parts = [encode(texts[piece]) if piece in texts else [vocabulary[piece]] for piece in pieces]
            return [token for part in parts for token in part]
    return None
