"""A byte-level BPE tokenizer out of GGUF metadata, as the files that ``transformers`` reads.

GGUF keeps the vocabulary and the merges, and names the pre-tokenizer by a word; which rules stand behind the word is
llama.cpp's knowledge (``llm_load_vocab``), repeated here for ``smollm`` alone: digits one by one, then GPT-2's pattern.
"""

from typing import Any

import mlx.core as mx
import msgspec

from app.errors import ModelUnusable

_CONTROL = 3
"""GGUF's ``token_type`` of special tokens."""


class GGUFTokenizer(msgspec.Struct, frozen=True):
    """The tokenizer's part of a GGUF file."""

    tokens: list[str]
    merges: list[str]
    specials: frozenset[str]
    bos: str
    eos: str
    unknown: str
    padding: str
    chat_template: str
    context_length: int

    @classmethod
    def read(cls, meta: dict[str, Any]) -> "GGUFTokenizer":
        """From the metadata that ``mx.load`` returns; raises :class:`app.errors.ModelUnusable` for other kinds."""
        kind = (meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre"))
        if kind != ("gpt2", "smollm"):
            raise ModelUnusable(f"The tokenizer {kind} of this GGUF file is not one that can be converted.")
        tokens: list[str] = meta["tokenizer.ggml.tokens"]
        types: mx.array = meta["tokenizer.ggml.token_type"]
        specials = frozenset(token for token, kind in zip(tokens, types.tolist(), strict=True) if kind == _CONTROL)

        def named(role: str) -> str:
            return tokens[int(meta[f"tokenizer.ggml.{role}_token_id"].item())]

        return cls(
            tokens=tokens,
            merges=meta["tokenizer.ggml.merges"],
            specials=specials,
            bos=named("bos"),
            eos=named("eos"),
            unknown=named("unknown"),
            padding=named("padding"),
            chat_template=meta["tokenizer.chat_template"],
            context_length=int(meta["llama.context_length"].item()),
        )

    def files(self) -> dict[str, bytes]:
        """File names and contents: the tokenizer, its configuration, its special tokens."""
        names = {"bos_token": self.bos, "eos_token": self.eos, "unk_token": self.unknown, "pad_token": self.padding}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": self.context_length,
            "chat_template": self.chat_template,
            **names,
        }
        contents = {
            "tokenizer.json": self._tokenizer(),
            "tokenizer_config.json": config,
            "special_tokens_map.json": {**names, "additional_special_tokens": [self.bos, self.eos]},
        }
        return {name: msgspec.json.encode(content) for name, content in contents.items()}

    def _tokenizer(self) -> dict[str, Any]:
        """In the format of the ``tokenizers`` library."""
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        added = [
            {"id": index, "content": token, **flags}
            for index, token in enumerate(self.tokens)
            if token in self.specials
        ]
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
            },
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {token: index for index, token in enumerate(self.tokens)},
                "merges": self.merges,
            },
        }
