"""Sampling: the request fields that both endpoints share, and the one resolved value that reaches the engine."""

from typing import Annotated

from msgspec import Meta, Struct

from app.schemas.models import ModelField

Probability = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]


class SamplingFields(ModelField, kw_only=True):
    """How the next token is drawn. ``null`` means the same as leaving a field out."""

    temperature: (
        Annotated[float, Meta(ge=0, le=2, description="0 is greedy; 1, the default, samples the model as it is.")]
        | None
    ) = None
    top_p: (
        Annotated[float, Meta(ge=0, le=1, description="Draw from the smallest set of tokens with this mass.")] | None
    ) = None
    top_k: Annotated[int, Meta(ge=-1, description="Draw from the k likeliest tokens; 0 or -1 is off.")] | None = None
    min_p: (
        Annotated[float, Meta(ge=0, le=1, description="Drop tokens below this share of the likeliest one.")] | None
    ) = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: (
        Annotated[float, Meta(ge=0.01, le=10, description="Divides (or multiplies, below 0) logits already seen.")]
        | None
    ) = None
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=10, description="repetition_penalty by another name.")] | None = (
        None
    )
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None


class Sampling(Struct, frozen=True):
    """How one row draws its tokens, every default resolved.

    Order of application, on float32 logits: ``logit_bias`` is added (-100 bans, 100 forces), penalties are
    subtracted over the tokens so far (``frequency``: per occurrence in the generated text, ``presence``: once;
    ``repetition``: divides positive and multiplies negative logits, prompt included), then ``temperature`` divides,
    and ``top_k``, ``top_p`` and ``min_p`` each cut the resulting distribution. Temperature 0 takes the argmax.

    ``seed`` makes the row's draws repeatable whatever runs beside it; None draws from the system's entropy.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None


class SamplingDefaults(Struct, frozen=True, omit_defaults=True):
    """What a model says of how chats with it are sampled; None where it says nothing. Fields of :class:`Sampling`."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
