"""What the OpenAPI document says of answers."""

from litestar.openapi.datastructures import ResponseSpec
from msgspec import Struct

from app.schemas.errors import ErrorBody

FAILURES = {
    400: "A field is wrong, `param` names it; or the model cannot be served.",
    401: "The API key is missing or unknown.",
    403: "The key or the model's licence does not allow it.",
    404: "No such model, or no such response.",
    413: "The body is too large.",
    429: "Too many requests are waiting; `Retry-After` says when to try again.",
    500: "The service failed.",
    503: "Not now; `Retry-After` says when to try again.",
}


def responses(answer: type[Struct]) -> dict[int, ResponseSpec]:
    """``answer`` with status 200, and every failure in its one shape."""
    whole = ResponseSpec(
        answer,
        generate_examples=False,
        description="The answer. With `stream: true` the same as `text/event-stream`: "
        'one `data:` line per chunk, then `data: [DONE]`; or `data: {"error": ...}` and no `[DONE]`.',
    )
    return {200: whole, **failures(*FAILURES)}


def admin_failures(*statuses: int) -> dict[int, ResponseSpec]:
    """Failures of ``/admin``, where a thing can also be in use."""
    texts = FAILURES | {409: "The model is in use, or not in memory."}
    return {it: ResponseSpec(ErrorBody, generate_examples=False, description=texts[it]) for it in statuses}


def failures(*statuses: int) -> dict[int, ResponseSpec]:
    """Failures alone."""
    return {it: ResponseSpec(ErrorBody, generate_examples=False, description=FAILURES[it]) for it in statuses}
