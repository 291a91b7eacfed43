"""A model that drafts for another: what it is, and whom it may draft for."""

from __future__ import annotations

import logging

import mlx.core as mx
from msgspec import Struct
from msgspec.structs import replace

from app.engine.mlx.cache.kv import KV
from app.engine.mlx.loaded import Loaded
from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.engine.options import LoadOptions


class DraftRefused(ValueError):
    """A model that runs, but not with this draft."""


class Draft(Struct, frozen=True):
    """A resident draft. It proposes none but the first ``vocabulary`` ids, and nothing beyond its own context."""

    name: str
    loaded: Loaded
    vocabulary: int
    context_length: int


def usable(options: LoadOptions, name: str, *, divided: bool) -> LoadOptions:
    """Without drafts where the model is ``divided`` over ranks, of which each would hold one, and on CUDA.

    There MLX plans attention anew for each length behind which several tokens stand. On an H100 that took 50 to 80 ms a
    pass, of steps of 5 (135 million weights) and 9 ms (8 billion).
    """
    if (options.draft is None and not options.lookup) or not (divided or mx.cuda.is_available()):
        return options
    why = "it lies on several ranks" if divided else "on CUDA verifying a draft takes longer than what it saves"
    logging.getLogger(__name__).warning("%s is loaded without its draft_model: %s", name, why)
    return replace(options, draft=None, lookup=False)


def common_vocabulary(target: MLXTokenizer, draft: MLXTokenizer, name: str) -> int:
    """How many ids there are; raises :class:`DraftRefused` unless each stands for the same token in both."""
    ids = target.vocabulary()
    if ids != draft.vocabulary():
        raise DraftRefused(f"draft_model = '{name}' has another vocabulary, so its tokens would mean other text")
    return max(ids.values()) + 1


def check_pair(target: Loaded, draft: Draft) -> None:
    """Raises :class:`DraftRefused` for caches that refused tokens cannot be taken out of, and for narrow logits.

    Logits may be wider than the vocabulary, in each model by another number: many are padded.
    """
    its = f"draft_model = '{draft.name}'"
    for whose, loaded in (("its own KV cache", target), (f"the KV cache of {its}", draft.loaded)):
        check_trimmable(loaded, draft.name, whose)
        if loaded.vocabulary < draft.vocabulary:
            raise DraftRefused(f"{its} needs logits of {draft.vocabulary} tokens, not of {loaded.vocabulary}")


def check_trimmable(loaded: Loaded, draft: str, whose: str = "its own KV cache") -> None:
    """Raises :class:`DraftRefused` for caches that refused tokens cannot be taken out of."""
    if not KV.fresh(loaded.model, loaded.kv_bits).plain:
        its = f"draft_model = '{draft}'"
        raise DraftRefused(f"{whose} cannot be trimmed (sliding window or recurrent state), as {its} needs")
