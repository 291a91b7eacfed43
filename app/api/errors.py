"""Failures as answers: one status per exception class, one body for all of them.

``STATUS`` is the only place that joins :mod:`app.errors` with HTTP. Messages of unforeseen exceptions go to the log,
never to the client.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException, ValidationException
from litestar.types import ExceptionHandlersMap, Method
from msgspec import Struct

from app import errors
from app.api import signpost
from app.api.anthropic_errors import anthropic_error, anthropic_status, speaks_anthropic
from app.api.observe.record import record_of
from app.api.read.body import ClientGone
from app.observability import Scope, request_id
from app.schemas.errors import ErrorBody, ErrorDetail

STATUS: dict[type[errors.SwitchyardError], int] = {
    errors.InvalidRequest: 400,
    errors.ModelUnusable: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.ModelNotFound: 404,
    errors.ResponseNotFound: 404,
    errors.Conflict: 409,
    errors.QueueFull: 429,
    errors.EngineFailed: 500,
    errors.Unavailable: 503,
    errors.EngineLost: 503,
}
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
UNFINISHED = {
    408: ("request_timeout", "The body has not come in time; send it faster or make it smaller."),
    413: ("body_too_large", "The body is larger than this service takes."),
}
"""Answers to requests whose rest is not waited for: code and message."""
CLIENT_GONE = 499
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


def status_of(error: errors.SwitchyardError) -> int:
    """The status of the most derived class that the table knows."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def body_of(error: Exception, where: str) -> ErrorBody:
    """The body that tells of ``error``; what is not foreseen is logged under the request id ``where``."""
    if isinstance(error, errors.SwitchyardError):
        return _body(status_of(error), error.message, param=error.param, code=error.code)
    structlog.get_logger("switchyard").error("unforeseen failure", request_id=where, exc_info=error)
    return _body(500, f"The service failed to answer; its log tells why under request id {where}.")


def exception_handlers() -> ExceptionHandlersMap:
    """What the application answers with, by exception class, in the dialect of who asked."""
    return {HTTPException: _in_dialect(_refused), ClientGone: _in_dialect(_gone), Exception: _in_dialect(_failed)}


def refusal(error: Exception, scope: Scope) -> tuple[int, dict[str, str], Struct]:
    """Status, headers and body of an answer that tells of ``error``, in the dialect of who asked."""
    where = request_id(scope)
    status, headers, body = _refusal(error, where)
    if speaks_anthropic(scope):
        return anthropic_status(status, body), {**headers, "request-id": where}, anthropic_error(body, where)
    return status, headers, body


def _in_dialect(
    handler: Callable[[Request[Any, Any, Any], Any], Response[ErrorBody]],
) -> Callable[[Request[Any, Any, Any], Any], Response[Any]]:
    def handle(request: Request[Any, Any, Any], error: Any) -> Response[Any]:
        answer = handler(request, error)
        if not speaks_anthropic(request.scope):
            return answer
        where, status = request_id(request.scope), anthropic_status(answer.status_code or 500, answer.content)
        headers = {**answer.headers, "request-id": where}
        return Response(anthropic_error(answer.content, where), status_code=status, headers=headers)

    return handle


def _refusal(error: Exception, where: str) -> tuple[int, dict[str, str], ErrorBody]:
    status = status_of(error) if isinstance(error, errors.SwitchyardError) else 500
    headers: dict[str, str] = {}
    if isinstance(error, errors.SwitchyardError) and error.retry_after is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return status, headers, body_of(error, where)


def _failed(request: Request[Any, Any, Any], error: Exception) -> Response[ErrorBody]:
    status, headers, body = _refusal(error, request_id(request.scope))
    record_of(request.scope).error = body.error.code
    return Response(body, status_code=status, headers=headers)


def busy_is_unavailable(request: Request[Any, Any, Any], error: errors.QueueFull) -> Response[ErrorBody]:
    """A full queue as 503, for a dialect whose clients show what a 503 says and hide what a 429 says (Codex).

    The limits of a key stay what they are.
    """
    full = error.code == errors.QueueFull.code
    shown = errors.Unavailable(error.message, code=error.code, retry_after=error.retry_after) if full else error
    return _failed(request, shown)


def _gone(_request: Request[Any, Any, Any], _error: ClientGone) -> Response[ErrorBody]:
    return Response(_body(CLIENT_GONE, "The client closed the connection."), status_code=CLIENT_GONE)


def _refused(request: Request[Any, Any, Any], error: HTTPException) -> Response[ErrorBody]:
    """Litestar's own failures: routing, sizes, parameters."""
    asked = f"{request.method} {request.url.path}"
    if isinstance(error, NotFoundException):
        advice = _advice(request) or "GET /schema/openapi.json lists what there is."
        message = f"Unknown request URL: {asked}. {advice}"
        return Response(_body(404, message, code="unknown_url"), status_code=404)
    if isinstance(error, MethodNotAllowedException):
        allowed = _allowed(request)
        message = f"{asked} is not allowed; this URL takes {allowed}. {_advice(request)}".rstrip()
        return Response(_body(405, message, code="method_not_allowed"), status_code=405, headers={"allow": allowed})
    if error.status_code in UNFINISHED:
        code, message = UNFINISHED[error.status_code]
        return Response(
            _body(error.status_code, message, code=code), status_code=error.status_code, headers={"connection": "close"}
        )
    if isinstance(error, ValidationException) and isinstance(error.extra, list) and error.extra:
        return Response(_parameter(error.extra[0]), status_code=400)
    if error.status_code >= 500:
        return Response(body_of(error, request_id(request.scope)), status_code=error.status_code)
    return Response(_body(error.status_code, error.detail), status_code=error.status_code, headers=error.headers)


def _parameter(problem: Any) -> ErrorBody:
    """Litestar's ``{message, key}``; bodies are checked elsewhere, so it misses them only where there is none."""
    if problem.get("key") == "data":
        return _body(400, "The body is empty; send a JSON object.")
    return _body(400, str(problem["message"]), param=problem.get("key"))


def _allowed(request: Request[Any, Any, Any]) -> str:
    """The methods of the URL, found by asking the router for each; where GET is, HEAD is too."""
    path = request.scope["path"].rstrip("/") or "/"
    return ", ".join(it for it in METHODS if _routed(request, "GET" if it == "HEAD" else it, path))


def _advice(request: Request[Any, Any, Any]) -> str:
    ended = request.headers.get("x-forwarded-proto", "").lower()  # by a proxy that ends TLS; for this hint alone
    scheme = ended if ended in {"http", "https"} else request.url.scheme
    origin = f"{scheme}://{request.url.netloc}"
    return signpost.advice(request.method, request.url.path, origin, partial(_routed, request))


def _routed(request: Request[Any, Any, Any], method: str, path: str) -> bool:
    try:
        request.app.asgi_router.handle_routing(path=path, method=cast("Method", method))
    except HTTPException:
        return False
    return True


def _body(status: int, message: str, *, param: str | None = None, code: str | None = None) -> ErrorBody:
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return ErrorBody(ErrorDetail(message=message, type=kind, param=param, code=code))
