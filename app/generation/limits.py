"""What a job may ask of a model: its context and its vocabulary, checked before anything is computed."""

from app.engine.base import Engine
from app.engine.ids import Ids
from app.engine.kind import Kind, unfit
from app.engine.leases import Lease
from app.engine.text import COUNTED, enough
from app.errors import InvalidRequest
from app.generation.job import Decoding


def check_kind(lease: Lease, kind: Kind) -> None:
    """Raise :class:`InvalidRequest` unless the model is for that."""
    if lease.engine.kind != kind:
        raise unfit(lease.model, lease.engine.kind, kind)


def max_tokens(engine: Engine, decoding: Decoding, prompt: Ids, *, field: str) -> int:
    """How many tokens may be generated after ``prompt``, which came in ``field``.

    What was asked for is an upper bound: no more than the context holds is generated. Raises :class:`InvalidRequest`
    that names ``field`` if the prompt alone leaves no room in it.
    """
    left = engine.context_length - len(prompt)
    least = 0 if decoding.max_tokens == 0 else 1
    if left < least:
        raise InvalidRequest(
            f"This model's context holds {engine.context_length} tokens; {len(prompt)} in the prompt leave no room for "
            "an answer. Shorten it.",
            param=field,
            code="context_length_exceeded",
        )
    return left if decoding.max_tokens is None else min(decoding.max_tokens, left)


def check_vocabulary(engine: Engine, decoding: Decoding) -> None:
    """Refuse token ids that the model does not have."""
    size = engine.tokenizer.facts.vocab_size
    named = [("stop_token_ids", token) for token in decoding.stop_token_ids]
    named += [("logit_bias", token) for token, _ in decoding.sampling.logit_bias]
    for param, token in named:
        if not 0 <= token < size:
            raise InvalidRequest(f"Token id {token} is outside the vocabulary of {size} tokens.", param=param)


async def check_length(engine: Engine, prompts: tuple[str | tuple[int, ...], ...], param: str) -> None:
    """Raises :class:`InvalidRequest` for a prompt that cannot fit into the model's context by any means."""
    limit = engine.context_length
    for prompt in prompts:
        if isinstance(prompt, tuple):
            tokens = len(prompt)
        elif len(prompt) <= COUNTED:  # it is not looked at here
            continue
        else:
            tokens = await engine.tokenizer.count(prompt, enough(limit))
            tokens = tokens if tokens > enough(limit) else 0
        if tokens > limit:
            raise InvalidRequest(
                f"This model's context holds {limit} tokens; the prompt has more than {min(tokens, 2 * limit)}. "
                "Shorten it.",
                param=param,
                code="context_length_exceeded",
            )
