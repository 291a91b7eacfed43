"""Settings: one flat, frozen value, from ``config/default.toml``, a file, the environment and flags, in that order.

A setting has one name in three spellings: ``memory_budget`` in TOML, ``SWITCHYARD_MEMORY_BUDGET`` in the
environment, ``--memory-budget`` as a flag.
"""

from pathlib import Path

from msgspec import Struct

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


class ModelEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``models.toml`` says of one model; every field may be left out.

    The sampling fields stand in for what a request leaves out. ``keep_alive`` is in seconds (0: unload after the
    answer, negative: stay); ``quantize`` in bits per weight.
    """

    aliases: tuple[str, ...] = ()
    revision: str | None = None
    pin: bool = False
    preload: bool = False
    keep_alive: float | None = None
    quantize: int | None = None
    adapter: str | None = None
    draft_model: str | None = None
    kv_bits: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set. Sizes are bytes, times are seconds."""

    host: str = "127.0.0.1"
    port: int = 8000
    memory_budget: int | None = None
    """Bytes for weights, KV caches and prefix caches together; None takes ``memory_fraction`` of the machine's."""
    memory_fraction: float = 0.75
    model_roots: tuple[Path, ...] = ()
    default_model: str = SMOLLM2
    offline: bool = False
    allow_models: tuple[str, ...] = ("*",)
    """Shell patterns of hub ids that may be asked for; anything else is 404 and never reaches the hub."""
    keep_alive: float = -1.0
    """Seconds an unused model stays resident; negative: until its memory is needed."""
    queue_limit: int = 256
    queue_timeout: float = 300.0
    min_residency: float = 2.0
    """Seconds a model stays before another may take its place while requests for it wait."""
    max_choices: int = 16
    max_batch_rows: int = 64
    prefill_slice: int = 512
    """Prompt tokens computed between two decode steps."""
    prefix_cache: int = 1 << 30
    """Bytes that prefix caches may hold, inside the memory budget."""
    max_body_bytes: int = 10 * 1024 * 1024
    api_keys: tuple[str, ...] = ()
    log_level: str = "info"
    log_format: str = "console"
    models: dict[str, ModelEntry] = {}
