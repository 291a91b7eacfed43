"""``GET /metrics``: numbers for Prometheus, in its text format."""

from collections.abc import Callable, Iterator
from typing import Any

from litestar import Controller, Request, Response, get
from litestar.di import NamedDependency
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from app.api.observe.figures import gauges
from app.api.observe.record import GAPS, Record
from app.registry.registry import ModelRegistry

MODELS = 64
"""Models that have numbers of their own; those that come later share the label ``other``."""

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
LABELS = ("model",)


class Metrics:
    """Everything that is counted, for one application."""

    def __init__(self, registry: Callable[[], ModelRegistry | None], running: Callable[[], int]) -> None:
        self.collectors = CollectorRegistry(auto_describe=True)
        self._models: set[str] = set()
        self._gaps: dict[str, _Gaps] = {}

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"switchyard_{name}", what, labels, registry=self.collectors)

        def histogram(name: str, what: str) -> Histogram:
            return Histogram(f"switchyard_{name}", what, LABELS, buckets=SECONDS, registry=self.collectors)

        self._requests = counter("requests", "Requests for an answer, by how they ended", "model", "outcome")
        self._errors = counter("errors", "Failures told to clients", "code")
        self._prompt = counter("prompt_tokens", "Tokens of prompts", *LABELS)
        self._cached = counter("cached_prompt_tokens", "Tokens of prompts that a prefix cache knew", *LABELS)
        self._generated = counter("completion_tokens", "Tokens generated", *LABELS)
        self._whole = histogram("request_seconds", "From a request to the end of its answer")
        self._first = histogram("time_to_first_token_seconds", "From a request to its first text")
        self._queue = histogram("queue_seconds", "Waiting for a model's turn and for memory")
        self._load = histogram("load_seconds", "Waiting for a model to be loaded, where it was not")
        ProcessCollector(registry=self.collectors)
        self.collectors.register(_Live(self._gaps, registry, running))

    def observe(self, record: Record) -> None:
        """Count a request that has ended."""
        if not record.path.startswith("/v1/") or record.method != "POST":
            return
        model = self._label(record.model)
        self._requests.labels(model, record.outcome).inc()
        if record.error is not None or record.status >= 400:
            self._errors.labels(record.error or str(record.status)).inc()
        timings = record.timings
        if timings is None:
            return
        self._prompt.labels(model).inc(record.prompt_tokens)
        self._cached.labels(model).inc(record.cached_tokens)
        self._generated.labels(model).inc(record.completion_tokens)
        self._whole.labels(model).observe(record.seconds)
        self._queue.labels(model).observe(timings.queue)
        if timings.load:
            self._load.labels(model).observe(timings.load)
        if record.first_token is not None:
            self._first.labels(model).observe(record.first_token)
        self._gaps.setdefault(model, _Gaps()).add(record)

    def _label(self, model: str | None) -> str:
        if model is None:
            return "none"
        if model not in self._models and len(self._models) >= MODELS:
            return "other"
        self._models.add(model)
        return model


class _Gaps:
    """Gaps between pieces of text, added up request by request."""

    def __init__(self) -> None:
        self.counts = [0] * (len(GAPS) + 1)
        self.seconds = 0.0

    def add(self, record: Record) -> None:
        self.counts = [had + more for had, more in zip(self.counts, record.gaps, strict=True)]
        self.seconds += record.gap_seconds


class _Live:
    """What is looked up when somebody asks."""

    def __init__(
        self, gaps: dict[str, _Gaps], registry: Callable[[], ModelRegistry | None], running: Callable[[], int]
    ) -> None:
        self._gaps = gaps
        self._registry = registry
        self._running = running

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            "switchyard_inter_token_seconds", "From one piece of text to the next", labels=LABELS
        )
        for model, gaps in self._gaps.items():
            total, buckets = 0, []
            for bound, count in zip([*map(str, GAPS), "+Inf"], gaps.counts, strict=True):
                total += count
                buckets.append((bound, float(total)))
            family.add_metric([model], buckets, gaps.seconds)
        yield family
        registry = self._registry()
        if registry is not None:
            yield from gauges(registry, self._running())


class MetricsController(Controller):
    """Needs a key with the scope ``metrics`` once there are keys."""

    path = "/"
    tags = ("Health",)

    @get("/", summary="Numbers for Prometheus", media_type="text/plain", include_in_schema=False)
    async def metrics(self, request: Request[Any, Any, Any], metrics: NamedDependency[Metrics]) -> Response[bytes]:
        """In the format that the Accept header asks for: Prometheus text or OpenMetrics."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.collectors), media_type=media_type)
