"""What a job may ask of a model: its context and its vocabulary, checked before anything is computed."""

from app.engine.base import Engine
from app.errors import InvalidRequest
from app.generation.job import Decoding


def max_tokens(engine: Engine, decoding: Decoding, prompt: tuple[int, ...], *, field: str) -> int:
    """How many tokens may be generated after ``prompt``, which came in ``field``.

    Raises :class:`InvalidRequest` if the context cannot hold what was asked for. It names the client's own limit if
    the prompt alone would fit, else ``field``.
    """
    left = engine.context_length - len(prompt)
    wanted = decoding.max_tokens
    if left < (1 if wanted is None else wanted):
        asked = "" if wanted is None else f" and {wanted} to generate make {len(prompt) + wanted}"
        raise InvalidRequest(
            f"This model's context holds {engine.context_length} tokens; {len(prompt)} in the prompt{asked}. "
            "Shorten the prompt or ask for fewer tokens.",
            param=field if decoding.limit is None or left < 1 else decoding.limit,
            code="context_length_exceeded",
        )
    return left if wanted is None else wanted


def check_vocabulary(engine: Engine, decoding: Decoding) -> None:
    """Refuse token ids that the model does not have."""
    size = engine.tokenizer.vocab_size
    named = [("stop_token_ids", token) for token in decoding.stop_token_ids]
    named += [("logit_bias", token) for token, _ in decoding.sampling.logit_bias]
    for param, token in named:
        if not 0 <= token < size:
            raise InvalidRequest(f"Token id {token} is outside the vocabulary of {size} tokens.", param=param)
