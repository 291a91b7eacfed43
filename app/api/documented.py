"""What the OpenAPI document says of answers."""

from litestar.openapi.datastructures import ResponseSpec
from msgspec import Struct

from app.schemas.anthropic_answer import AnthropicError
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

ANTHROPIC_FAILURES = {
    429: "The key has used up what it may; `Retry-After` says when to try again.",
    529: "Too many requests are waiting; `Retry-After` says when to try again.",
}


def responses(answer: type[Struct], *, streamed: bool = True) -> dict[int, ResponseSpec]:
    """``answer`` with status 200, and every failure in its one shape."""
    description = "The answer."
    if streamed:
        description += (
            " With `stream: true` the same as `text/event-stream`: one `data:` line per chunk, then `data: [DONE]`; "
            'or `data: {"error": ...}` and no `[DONE]`.'
        )
    return {200: ResponseSpec(answer, generate_examples=False, description=description), **failures(*FAILURES)}


def anthropic_responses(answer: type[Struct], *, streamed: bool = True) -> dict[int, ResponseSpec]:
    """``answer`` with status 200, and every failure in Anthropic's shape."""
    description = "The answer."
    if streamed:
        description += (
            " With `stream: true` the same as `text/event-stream`: `message_start`, the blocks, `message_delta`, "
            "`message_stop`; or `error` as the last event."
        )
    whole = ResponseSpec(answer, generate_examples=False, description=description)
    texts = {code: text for code, text in FAILURES.items() if code != 429} | ANTHROPIC_FAILURES
    failed = {it: ResponseSpec(AnthropicError, generate_examples=False, description=text) for it, text in texts.items()}
    return {200: whole, **failed}


def admin_failures(*statuses: int) -> dict[int, ResponseSpec]:
    """Failures of ``/admin``, where a thing can also be in use."""
    texts = FAILURES | {409: "The model is in use, or not in memory."}
    return {it: ResponseSpec(ErrorBody, generate_examples=False, description=texts[it]) for it in statuses}


def failures(*statuses: int) -> dict[int, ResponseSpec]:
    """Failures alone."""
    return {it: ResponseSpec(ErrorBody, generate_examples=False, description=FAILURES[it]) for it in statuses}
