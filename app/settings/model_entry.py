"""What ``models.toml`` says of one model, and the kinds of value that settings have."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

Size = Annotated[int, Meta(ge=0, extra={"unit": "bytes"})]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
Name = Annotated[str, Meta(min_length=1)]
Mark = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}\Z", extra={"allowed": "eight digits of 0-9 and a-f, or auto"})]


class ModelEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``models.toml`` says of one model; every field may be left out.

    The sampling fields stand in for what a request leaves out. ``keep_alive`` is in seconds (0: unload after the
    answer, negative: stay); ``quantize`` is in bits per weight, ``kv_bits`` in bits per value of the KV cache.
    """

    aliases: Annotated[
        tuple[Name, ...],
        Meta(description="Other names that clients may ask for; `claude-*` stands for all that begin so."),
    ] = ()
    revision: Annotated[Name | None, Meta(description="Branch, tag or commit of the hub repository.")] = None
    pin: Annotated[bool, Meta(description="Once loaded, never evicted.")] = False
    preload: Annotated[bool, Meta(description="Loaded when the service starts.")] = False
    keep_alive: Annotated[
        float | None, Meta(description="Seconds it stays unused; 0: unload after the answer, negative: stay.")
    ] = None
    quantize: Annotated[
        Literal[2, 3, 4, 5, 6, 8] | None, Meta(description="Bits per weight to quantise to when it is loaded.")
    ] = None
    tool_prompt: Annotated[
        Literal["generic", "refuse"] | None,
        Meta(
            description="How a model is told of functions: unset, by its own template, or in the system message where "
            "that knows none; generic, in the system message; refuse, a 400 where the template knows none."
        ),
    ] = None
    adapter: Annotated[
        Name | None, Meta(description="LoRA adapter: a directory below a model root, by its relative path.")
    ] = None
    draft_model: Annotated[
        Name | None,
        Meta(
            description="Small model of the same vocabulary that proposes tokens while one answer runs alone; "
            "prompt-lookup: no model, what a text has said before is proposed again, for up to 8 answers. Not on CUDA."
        ),
    ] = None
    kv_bits: Annotated[
        Literal[2, 3, 4, 5, 6, 8] | None,
        Meta(
            description="Bits per value to quantise the KV cache to: longer contexts in the same memory, "
            "for slower and less exact answers."
        ),
    ] = None
    pooling: Annotated[
        Literal["cls", "mean", "max", "mean_sqrt_len", "lasttoken", "weightedmean"] | None,
        Meta(
            description="How an embedding model's vectors are made, where its files do not say; the model then serves "
            "embeddings alone."
        ),
    ] = None
    dtype: Annotated[
        Literal["auto", "float16", "bfloat16"],
        Meta(
            description="Type that weights of 16 bits are computed in; auto: float16 on M1 and M2, which emulate "
            "bfloat16, else as the checkpoint has it. On a CPU always float32."
        ),
    ] = "auto"
    ranks: Annotated[
        Annotated[int, Meta(ge=2, le=64)] | None,
        Meta(
            description="Processes of this machine that the model is divided over, one GPU each where there are GPUs: "
            "for models that do not fit one."
        ),
    ] = None
    hosts: Annotated[
        Path | None,
        Meta(
            description="Host file of mlx.launch: the model is divided over these machines, this one being the first."
        ),
    ] = None
    temperature: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | None, Meta(description="Where a request names none.")
    ] = None
    top_p: Annotated[Share | None, Meta(description="Where a request names none.")] = None
    top_k: Annotated[Annotated[int, Meta(ge=0)] | None, Meta(description="Where a request names none; 0: off.")] = None
    min_p: Annotated[Annotated[float, Meta(ge=0, le=1)] | None, Meta(description="Where a request names none.")] = None
    repetition_penalty: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="Where a request names none; 1.0: off.")
    ] = None
    max_tokens: Annotated[Count | None, Meta(description="Where a request names none.")] = None
