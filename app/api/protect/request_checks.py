"""What every request passes first: whom it names as host, whose page sends it, whether it is time, how slow it is."""

import asyncio
from typing import Any

import msgspec
from litestar.exceptions import HTTPException

from app.api.errors import refusal
from app.api.observe.record import record_of
from app.api.observe.service_state import ServiceState
from app.api.protect.access import caller_of
from app.api.protect.cors import Cors
from app.api.protect.hosts import Names, same_site
from app.errors import Forbidden, InvalidRequest, ModelNotFound, SwitchyardError
from app.observability import ASGIApp, Message, Receive, Scope, Send
from app.settings import Settings

DOCS = ("/docs", "/schema")
OPEN_WHILE_STOPPING = ("/health", "/metrics")


class RequestChecks:
    """Wraps the application; one for each."""

    def __init__(self, app: ASGIApp, settings: Settings, service_state: ServiceState) -> None:
        self._app = app
        self._names = Names(settings.host, settings.allowed_hosts)
        self._cors = Cors(settings.cors_origins)
        self._body_timeout = settings.body_timeout
        self._docs = settings.docs
        self._service_state = service_state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = header(scope, b"origin")
        send = self._cors.wrap(origin, send)
        if self._cors.is_preflight(scope, origin):
            await self._cors.preflight(scope, send)
            return
        failure = self._refusal(scope, origin)
        if failure is not None:
            await _answer(scope, send, failure)
            return
        if scope["method"] == "HEAD":
            scope, receive, send = _as_get(scope, send)
        try:
            await self._app(scope, self._timed(receive), send)
        finally:
            caller = caller_of(scope)
            if caller is not None:
                caller.end()

    def _refusal(self, scope: Scope, origin: str | None) -> SwitchyardError | None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) > 1:
            return InvalidRequest("Send one Host header.")
        host = hosts[0].decode("latin-1") if hosts else None
        if host is not None and not self._names.known(host):
            return Forbidden(
                "This service is not known by the name in the Host header. Use its address, or add the name to "
                "allowed_hosts in its settings.",
                code="host_not_allowed",
            )
        if origin is not None and not (same_site(origin, host or "") or self._cors.allows(origin)):
            return Forbidden(
                "Pages of other sites may not use this service; cors_origins in its settings lists those that may.",
                code="origin_not_allowed",
            )
        if not self._docs and scope["path"].startswith(DOCS):
            return ModelNotFound("The description of the API is switched off here.", code="unknown_url")
        if scope["path"].startswith(OPEN_WHILE_STOPPING):
            return None
        return self._service_state.refusal()

    def _timed(self, receive: Receive) -> Receive:
        """``receive`` that gives up on a body that takes too long; waiting for the end of a connection is free."""
        loop = asyncio.get_running_loop()
        deadline: float | None = loop.time() + self._body_timeout

        async def timed() -> Any:
            nonlocal deadline
            if deadline is None:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(status_code=408) from None
            if message["type"] != "http.request" or not message.get("more_body", False):
                deadline = None
            return message

        return timed


def header(scope: Scope, wanted: bytes) -> str | None:
    """The first header of that name."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), None)


def _as_get(scope: Scope, send: Send) -> tuple[Scope, Receive, Send]:
    """A HEAD request as the GET that it asks about: the answer ends with its headers, and its reader has gone then."""
    answered = asyncio.Event()
    asked = False

    async def receive() -> Any:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await answered.wait()
        return {"type": "http.disconnect"}

    async def begin(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            answered.set()

    return {**scope, "method": "GET"}, receive, begin


async def _answer(scope: Scope, send: Send, failure: SwitchyardError) -> None:
    record_of(scope).error = failure.code
    status, headers, body = refusal(failure, scope)
    raw = msgspec.json.encode(body)
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    fields += [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
    start: Message = {"type": "http.response.start", "status": status, "headers": fields}
    await send(start)
    await send({"type": "http.response.body", "body": raw, "more_body": False})
