"""What can be set: the two structs that every other spelling of a setting is made from.

The descriptions here are the comments of ``config/default.toml``, the help of the flags and the table of
``docs/configuration.md``; ``app.settings.reference`` writes the first and the last of these.
"""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from app.settings.model_entry import Count, Mark, ModelEntry, Name, Positive, Seconds, Share, Size

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set. Sizes are bytes, times are seconds."""

    host: Annotated[Name, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port to listen on; 0 takes any free one.")] = 8000
    memory_budget: Annotated[
        Size | None,
        Meta(
            description="Bytes for weights, KV caches and prefix caches together; "
            "auto takes memory_fraction of the machine's memory."
        ),
    ] = None
    memory_fraction: Annotated[
        Share | None,
        Meta(
            description="Share of the machine's memory that the budget takes when memory_budget is auto; auto: 0.95 of "
            "Metal's working set, 0.9 of a GPU's memory, 0.75 of the system's on a CPU."
        ),
    ] = None
    wired_limit: Annotated[
        Size,
        Meta(
            description="Bytes of models that macOS may not page out, all of them together; 0: none. However much is "
            "set, the larger of 8 GB and 35 % of the memory stays free of it."
        ),
    ] = 0
    model_roots: Annotated[
        tuple[Path, ...],
        Meta(description="Directories whose model directories are served under their paths relative to the root."),
    ] = ()
    default_model: Annotated[Name, Meta(description="Model that answers when a request names none.")] = SMOLLM2
    offline: Annotated[bool, Meta(description="Never talk to the hub; serve what is on disk.")] = False
    allow_models: Annotated[
        tuple[Name, ...],
        Meta(
            description="Shell patterns of hub ids that may be asked for, beside default_model and those in "
            "models.toml; anything else is 404 and never fetched."
        ),
    ] = ("*",)
    keep_alive: Annotated[
        float,
        Meta(description="Seconds an unused model stays in memory; negative: until its memory is needed."),
    ] = -1.0
    queue_limit: Annotated[
        Count,
        Meta(description="Requests that may wait for a model or a place in its batch; one more is answered with 429."),
    ] = 256
    queue_timeout: Annotated[
        Annotated[float, Meta(gt=0)], Meta(description="Seconds a request may wait before it is answered with 503.")
    ] = 300.0
    min_residency: Annotated[
        Seconds,
        Meta(description="Seconds a model stays before another may take its place while requests for it wait."),
    ] = 2.0
    max_choices: Annotated[Count, Meta(description="Largest n and best_of that a request may ask for.")] = 16
    max_batch_rows: Annotated[Count, Meta(description="Sequences of one model that are generated together.")] = 64
    prefill_slice: Annotated[
        Annotated[int, Meta(ge=0)],
        Meta(description="Most prompt tokens computed between two decode steps; 0: 2048 on CUDA, 512 elsewhere."),
    ] = 0
    prefix_cache: Annotated[
        Size | None,
        Meta(
            description="Most bytes that prefix caches may hold, inside the memory budget; auto: what models and "
            "running requests leave free of it."
        ),
    ] = None
    disk_cache: Annotated[
        Size | None,
        Meta(
            description="Bytes of prefixes that are kept on disk, of all models together, so that they are found again "
            "after an eviction or a restart; auto: 10 GiB, or a quarter of what is free if that is less. 0: none. "
            "Nothing is written while less than 10 GiB of the disk is free."
        ),
    ] = None
    disk_cache_dir: Annotated[
        Path | None,
        Meta(
            description="Directory that they are kept in; none: switchyard/prefixes in the user's cache directory. "
            "They are as private as the prompts that they were made of. Services of one machine may share it.",
            extra={"made": True, "folder": True},
        ),
    ] = None
    prefixes_by_key: Annotated[
        bool,
        Meta(
            description="Whether what was computed of prompts and answers for one API key spares computing to its own "
            "requests alone, in memory and on disk. Otherwise all keys share it, and how fast a prompt is answered and "
            "how much of it was cached tell whether somebody has sent its beginning before.",
        ),
    ] = False
    response_store: Annotated[
        Size,
        Meta(
            description="Bytes of responses (/v1/responses) that are kept for previous_response_id and item_reference; "
            "those not used for longest make room. 0: none are kept."
        ),
    ] = 256 << 20
    response_lifetime: Annotated[
        Positive, Meta(description="Seconds after its last use for which a response is kept.")
    ] = 604800.0
    response_file: Annotated[
        Path | None,
        Meta(
            description="File (SQLite) that responses are kept in, so that they survive a restart; none: in memory. "
            "Services of one machine may share it.",
            extra={"made": True},
        ),
    ] = None
    response_mark: Annotated[
        Mark | None,
        Meta(
            description="Eight hexadecimal digits that the ids of this service's responses begin with, so that a "
            "balancer finds it again by them; auto: drawn by chance."
        ),
    ] = None
    max_connections: Annotated[
        Count, Meta(description="Connections that may be open at once; one more is answered with 503 and closed.")
    ] = 1024
    header_timeout: Annotated[
        Positive, Meta(description="Seconds within which the head of a request must have come; then 408.")
    ] = 20.0
    body_timeout: Annotated[
        Positive, Meta(description="Seconds within which the body of a request must have come; then 408.")
    ] = 60.0
    idle_timeout: Annotated[
        Positive,
        Meta(description="Seconds a connection may stay open between two requests."),
    ] = 75.0
    stall_timeout: Annotated[
        Positive,
        Meta(description="Seconds a client may leave its answer unread before the connection is cut."),
    ] = 120.0
    request_timeout: Annotated[
        Positive,
        Meta(
            description="Seconds from a request to the end of its answer; then 503, or an error that ends the stream."
        ),
    ] = 3600.0
    watchdog_timeout: Annotated[
        Seconds,
        Meta(
            description="Seconds that one step of a model may take before its process counts as hung and is ended; its "
            "requests fail, other models go on. 0: never."
        ),
    ] = 300.0
    spare_process: Annotated[
        bool,
        Meta(
            description="Keep one process with its imports done, of about 70 MB, for the next load, which is then a "
            "second faster; there is none while less than 1 GB of memory is free."
        ),
    ] = True
    max_body_bytes: Annotated[Size, Meta(description="Largest request body; a larger one is answered with 413.")] = (
        10 * 1024 * 1024
    )
    stop_grace: Annotated[
        Seconds, Meta(description="Seconds that running answers may take to finish once the service is told to stop.")
    ] = 10.0
    stay_awake: Annotated[
        bool, Meta(description="On a Mac, keep the machine from falling asleep while it answers or downloads.")
    ] = True
    api_keys: Annotated[
        tuple[Name, ...],
        Meta(
            description="Keys with every right, one of which clients must send; without any here or in key_file, "
            "whoever reaches the service may use it.",
            extra={"secret": True},
        ),
    ] = ()
    key_file: Annotated[
        Path | None,
        Meta(description="Keys with scopes, models and limits, hashed; `switchyard key` writes it, SIGHUP reads it."),
    ] = None
    signing_keys: Annotated[
        tuple[Name, ...],
        Meta(
            description="Secrets that sign what clients keep of a model's thoughts and send back: the first signs, all "
            "are known; without any, a new one at each start. Services behind one address share them.",
            extra={"secret": True},
        ),
    ] = ()
    open_to_network: Annotated[
        bool, Meta(description="Listen on other addresses than loopback although nobody needs a key.")
    ] = False
    allowed_hosts: Annotated[
        tuple[Name, ...],
        Meta(
            description="Names, beside its own and IP addresses, under which the service may be asked (Host header); "
            "`*.example.com` for all below one, `*` for any."
        ),
    ] = ()
    cors_origins: Annotated[
        tuple[Name, ...],
        Meta(description="Sites whose pages may use the service from a browser, such as https://chat.example.com."),
    ] = ()
    tls_certificate: Annotated[
        Path | None, Meta(description="PEM file with the certificate (and its chain) for HTTPS; none: plain HTTP.")
    ] = None
    tls_key: Annotated[Path | None, Meta(description="PEM file with the certificate's private key.")] = None
    docs: Annotated[bool, Meta(description="Serve the description of the API at /schema/openapi.json.")] = True
    tracing: Annotated[
        bool,
        Meta(description="Send OpenTelemetry traces where OTEL_EXPORTER_OTLP_ENDPOINT says; needs the extra `otel`."),
    ] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe log lines to write.")
    ] = "info"
    log_format: Annotated[
        Literal["console", "json"], Meta(description="Log lines for people (console) or for machines (json).")
    ] = "console"
    models: dict[str, ModelEntry] = {}
