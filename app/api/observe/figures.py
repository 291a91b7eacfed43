"""The registry's state as Prometheus metrics, made when they are asked for."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from app.registry.registry import ModelRegistry
from app.registry.status import Figures

MEMORY = (
    "weights",
    "kv",
    "kv_held",
    "scratch",
    "processes",
    "prefix_caches",
    "active",
    "unaccounted",
    "pool",
    "process",
)


def gauges(registry: ModelRegistry, running: int) -> Iterator[Metric]:
    """Memory by kind, queue, batches, and what has been loaded and evicted since the start."""
    memory, figures = registry.memory(), registry.figures()
    kinds = GaugeMetricFamily("switchyard_memory_bytes", "Memory by what holds it", labels=("kind",))
    for kind in MEMORY:
        kinds.add_metric([kind], getattr(memory, kind))
    yield kinds
    yield GaugeMetricFamily("switchyard_memory_budget_bytes", "The memory budget", memory.limit)
    yield GaugeMetricFamily("switchyard_queue_depth", "Requests that wait for a model or for memory", memory.queued)
    yield GaugeMetricFamily("switchyard_running_requests", "Answers that are being worked on", running)
    room = memory.limit - memory.weights
    yield GaugeMetricFamily(
        "switchyard_kv_cache_usage",
        "Share that KV caches take, from 0 to 1, of the memory budget that weights leave",
        min(memory.kv / room, 1.0) if room > 0 else 0.0,
    )
    yield GaugeMetricFamily("switchyard_resident_models", "Models in memory", len(figures.work))
    rows = GaugeMetricFamily("switchyard_batch_rows", "Rows that are generated together", labels=("model",))
    backlog = GaugeMetricFamily(
        "switchyard_prefill_backlog_tokens", "Tokens of prompts still to compute", labels=("model",)
    )
    proposed = CounterMetricFamily(
        "switchyard_draft_tokens_proposed", "Tokens that a draft model proposed, since the load", labels=("model",)
    )
    accepted = CounterMetricFamily(
        "switchyard_draft_tokens_accepted", "Of these, tokens that the model itself drew", labels=("model",)
    )
    yield _error(figures)
    yield from _on_disk(figures)
    for model, work in figures.work.items():
        rows.add_metric([model], work.rows)
        backlog.add_metric([model], work.waiting_tokens)
        if work.proposed:
            proposed.add_metric([model], work.proposed)
            accepted.add_metric([model], work.accepted)
    yield rows
    yield backlog
    yield from _prefixes(figures)
    yield proposed
    yield accepted
    counts = figures.counts
    yield CounterMetricFamily("switchyard_model_loads", "Models loaded", counts.loads)
    yield CounterMetricFamily("switchyard_model_load_failures", "Models that could not be loaded", counts.load_failures)
    yield CounterMetricFamily("switchyard_engine_losses", "Processes of models that ended unasked", figures.losses)
    yield CounterMetricFamily("switchyard_model_evictions", "Models that left memory", counts.evictions)
    yield CounterMetricFamily("switchyard_model_fetches", "Models looked up or downloaded", counts.fetches)
    yield CounterMetricFamily(
        "switchyard_model_fetch_failures", "Models that could not be found or downloaded", counts.fetch_failures
    )


def _on_disk(figures: Figures) -> Iterator[Metric]:
    """Of models that are in memory; counted since their load."""
    help_text = {
        "writes": "Files of computed prompts written",
        "written": "Bytes of these",
        "read": "Bytes of such files read",
        "evictions": "Such files that made room for others",
        "faults": "Such files that could not be written, or not be believed",
    }
    held = GaugeMetricFamily("switchyard_disk_cache_bytes", "Files of computed prompts, by model", labels=("model",))
    counts = {
        name: CounterMetricFamily(f"switchyard_disk_cache_{name}", text, labels=("model",))
        for name, text in help_text.items()
    }
    for model, work in figures.work.items():
        held.add_metric([model], work.on_disk.nbytes)
        for name, counter in counts.items():
            counter.add_metric([model], getattr(work.on_disk, name))
    yield held
    yield from counts.values()


def _prefixes(figures: Figures) -> Iterator[Metric]:
    """What prefix caches knew of prompts, by where it was kept."""
    labels = ("model", "tier")
    hits = CounterMetricFamily(
        "switchyard_prefix_hits", "Prompts of which a beginning was kept, since the load", labels=labels
    )
    spared = CounterMetricFamily(
        "switchyard_prefix_tokens_spared", "Tokens of these, which were not computed", labels=labels
    )
    for model, work in figures.work.items():
        hits.add_metric([model, "memory"], work.hits)
        spared.add_metric([model, "memory"], max(0, work.spared - work.on_disk.spared))
        hits.add_metric([model, "disk"], work.on_disk.hits)
        spared.add_metric([model, "disk"], work.on_disk.spared)
    yield hits
    yield spared


def _error(figures: Figures) -> Metric:
    help_text = "What a model's process held beyond its books when it was last idle, or less"
    error = GaugeMetricFamily("switchyard_books_error_bytes", help_text, labels=("model",))
    for model, books in figures.books.items():
        error.add_metric([model], books.error)
    return error
