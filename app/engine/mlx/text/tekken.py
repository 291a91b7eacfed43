"""Mistral's tekken vocabularies, cut into the pieces that they were made for.

Many a tokenizer.json of Mistral's models (Small 3.1 and others, and what was converted of them) has another family's
pattern: texts with combining marks, such as Hindi, Thai or Hebrew with its points, and slashes behind line ends then
become other tokens than the model was trained on. transformers calls it ``fix_mistral_regex`` and goes by the name of
the architecture, also where the vocabulary is no tekken. Here the vocabulary decides: ids are equal to those of
mistral-common for tekken, and what they were for everything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlx_lm import tokenizer_utils
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_tokenizer
from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where tekken cuts a text, as ``config.pattern`` of mistral-common's tekken files has it."""
MARK = "[INST]"
NEVER_ONE = re.compile(r"[0-9]{2}|[a-z][A-Z]")
"""What that pattern always cuts, so that no token of a vocabulary made for it has it; others have thousands."""

TOLD = {"trust_remote_code": False, "fix_mistral_regex": False}
"""What transformers would otherwise ask for on the standard input, and what is done here instead."""


def read_tokenizer(path: Path, eos_token_ids: list[int] | int | None) -> TokenizerWrapper:
    """What mlx-lm makes of a model directory, mended; no code from there is run. One thread at a time."""
    with _nothing_twice():
        wrapper = load_tokenizer(path, TOLD, eos_token_ids=eos_token_ids)
    its = wrapper._tokenizer  # noqa: SLF001  mlx-lm's wrapper forwards only what it does not define
    if its.is_fast:
        mend(its.backend_tokenizer)
    return wrapper


@contextmanager
def _nothing_twice() -> Iterator[None]:
    """mlx-lm asks for the whole vocabulary again and again, and spells it for a detokenizer that nobody uses here.

    That is half of the time that reading takes.
    """
    spelling = tokenizer_utils.BPEStreamingDetokenizer, tokenizer_utils.SPMStreamingDetokenizer
    listed = PreTrainedTokenizerFast.get_vocab
    lists: dict[tuple[int, int], dict[str, int]] = {}

    def once(self: PreTrainedTokenizerFast) -> dict[str, int]:
        key = id(self), len(self)
        if key not in lists:
            lists[key] = listed(self)
        return lists[key]

    def none(_tokenizer: PreTrainedTokenizerFast, **_options: object) -> None:
        """No detokenizer."""

    tokenizer_utils.BPEStreamingDetokenizer = tokenizer_utils.SPMStreamingDetokenizer = none
    PreTrainedTokenizerFast.get_vocab = once
    try:
        yield
    finally:
        tokenizer_utils.BPEStreamingDetokenizer, tokenizer_utils.SPMStreamingDetokenizer = spelling
        PreTrainedTokenizerFast.get_vocab = listed


def mend(tokenizer: Tokenizer) -> bool:
    """Give a tekken vocabulary its own pattern if it has another; whether it had."""
    added = {it.content for it in tokenizer.get_added_tokens_decoder().values()}
    if MARK not in added or not _cuts_otherwise(tokenizer):
        return False
    if any(NEVER_ONE.search(piece) for piece in tokenizer.get_vocab() if piece not in added):
        return False
    tokenizer.pre_tokenizer[0] = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    return True


def _cuts_otherwise(tokenizer: Tokenizer) -> bool:
    """Whether bytes are merged within pieces that another pattern than tekken's makes."""
    if not isinstance(tokenizer.pre_tokenizer, pre_tokenizers.Sequence):
        return False
    steps = json.loads(tokenizer.pre_tokenizer.__getstate__())["pretokenizers"]
    if [step["type"] for step in steps] != ["Split", "ByteLevel"] or steps[1]["use_regex"]:
        return False
    return bool(steps[0]["pattern"].get("Regex", PATTERN) != PATTERN)
