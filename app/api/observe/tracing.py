"""OpenTelemetry traces: a span for each request for an answer, with its queue, load, prefill and decode below it.

Source of the names: OpenTelemetry's semantic conventions for generative AI. Spans are made when a request has ended,
from what was measured; a ``traceparent`` of the client is continued. Prompts and answers are never told.
"""

from collections.abc import Mapping
from typing import Any

from app import __version__
from app.api.observe.record import Record
from app.settings.problem import SettingsProblem

OPERATIONS = {"/v1/chat/completions": "chat", "/v1/completions": "text_completion"}


def tracer(exporter: Any = None) -> "Tracer":
    """Sends spans to ``exporter``; by default over OTLP, as the variables of OpenTelemetry's SDK say.

    Raises SettingsProblem if the extra is not installed.
    """
    try:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

            exporter = OTLPSpanExporter()
    except ImportError:
        raise SettingsProblem("tracing: needs OpenTelemetry; install the extra: mlx-switchyard[otel]") from None
    provider = TracerProvider(resource=Resource.create({"service.name": "switchyard", "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracer(provider)


class Tracer:
    """Told of every request."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("switchyard", __version__)

    def __call__(self, record: Record) -> None:
        """Make the spans of a request for an answer."""
        if record.path in OPERATIONS and record.method == "POST":
            _spans(self._tracer, record)

    def flush(self) -> None:
        """Send what has not been sent yet."""
        self._provider.force_flush()


def _spans(made: Any, record: Record) -> None:
    from opentelemetry.propagate import extract  # noqa: PLC0415
    from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context  # noqa: PLC0415

    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in record.headers}
    operation = OPERATIONS[record.path]
    name = operation if record.model is None else f"{operation} {record.model}"
    span = made.start_span(
        name,
        context=extract(carrier),
        kind=SpanKind.SERVER,
        start_time=record.began_ns,
        attributes=_attributes(record, operation),
    )
    if record.outcome == "failed":
        span.set_status(Status(StatusCode.ERROR))
    below, at = set_span_in_context(span), record.began_ns
    if record.timings is not None:
        for part in ("queue", "load", "prefill", "decode"):
            seconds: float = getattr(record.timings, part)
            if seconds > 0:
                child = made.start_span(part, context=below, start_time=at)
                at += int(seconds * 1e9)
                child.end(at)
    span.end(record.began_ns + int(record.seconds * 1e9))


def _attributes(record: Record, operation: str) -> Mapping[str, Any]:
    attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "switchyard",
        "gen_ai.request.model": record.model,
        "gen_ai.response.model": record.model,
        "gen_ai.usage.input_tokens": record.prompt_tokens or None,
        "gen_ai.usage.output_tokens": record.completion_tokens or None,
        "http.response.status_code": record.status,
        "error.type": record.error,
        "switchyard.request_id": record.id,
        "switchyard.outcome": record.outcome,
        "switchyard.time_to_first_token": record.first_token,
    }
    return {name: value for name, value in attributes.items() if value is not None}
