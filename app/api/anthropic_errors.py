"""Failures as Anthropic's clients read them, for whoever asks in Anthropic's dialect.

Source of the shape: Anthropic's reference of errors (``ErrorResponse``).
"""

from typing import Any

from app.schemas.anthropic_answer import AnthropicError, AnthropicErrorDetail, ErrorDetails
from app.schemas.errors import ErrorBody

PATH = "/v1/messages"
OVERLOADED = 529
NO_THREADS = "thread_unsupported_request"
BY_CODE = {"queue_full": "overloaded_error", "body_too_large": "request_too_large"}
BY_TYPE = {"server_error": "api_error", "conflict_error": "invalid_request_error"}


def speaks_anthropic(scope: Any) -> bool:
    """Whether a request is in Anthropic's dialect: by its path, or by the header that all of its clients send."""
    path: str = scope["path"]
    if path == PATH or path.startswith(f"{PATH}/"):
        return True
    return any(name == b"anthropic-version" for name, _ in scope["headers"])


def anthropic_status(status: int, body: ErrorBody) -> int:
    """A full queue is an overload; 429 is for who has used up what a key may."""
    return OVERLOADED if body.error.code == "queue_full" else status


def anthropic_error(body: ErrorBody, where: str) -> AnthropicError:
    """What tells of a failure of the request ``where``, as a body or as the last event of a stream.

    People are shown the message alone, so it names the place that is wrong. Claude Code compacts a conversation when it
    reads that the prompt is too long, and Anthropic's SDK goes on without a thread when it is told that there are none.
    """
    detail = body.error
    message = detail.message
    if detail.code == "context_length_exceeded":
        message = f"prompt is too long: {message}"
    elif detail.param is not None and detail.param not in message:
        message = f"{detail.param}: {message}"
    kind = BY_CODE.get(detail.code or "") or BY_TYPE.get(detail.type, detail.type)
    unsupported = (detail.param,) if detail.code == NO_THREADS and detail.param is not None else ()
    details = None if detail.code is detail.param is None else ErrorDetails(detail.code, detail.param, unsupported)
    return AnthropicError(AnthropicErrorDetail(kind, message, details), where)
