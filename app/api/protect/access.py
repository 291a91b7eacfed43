"""Who is asking, and what they may: API keys, their scopes, their models and their limits."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from hmac import compare_digest
from time import monotonic
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from app.api.observe.record import record_of
from app.errors import Forbidden, QueueFull, Unauthorized
from app.schemas.models import ModelField
from app.settings.keys import ApiKey, Scope, digest_of

MINUTE = 60.0

Canonical = Callable[[str | None], str]
"""From what a request calls a model (None: the default one) to the id that patterns are matched with."""


class Usage:
    """What one key has used: its requests of the running minute and those that run now."""

    def __init__(self, key: ApiKey) -> None:
        self.key = key
        self.running = 0
        self._tokens = float(key.requests_per_minute or 0)
        self._filled = monotonic()

    def take(self) -> None:
        """Count a request. Raises :class:`QueueFull` if the key has used up what it may."""
        most = self.key.concurrent_requests
        if most is not None and self.running >= most:
            raise QueueFull(
                f"This key may run {most} requests at once. Wait until one has ended.",
                code="concurrency_limit_exceeded",
                retry_after=1.0,
            )
        rate = self.key.requests_per_minute
        if rate is not None:
            self._spend(rate)
        self.running += 1

    def _spend(self, rate: int) -> None:
        """A bucket that holds a minute's requests and fills up evenly."""
        now = monotonic()
        self._tokens = min(float(rate), self._tokens + (now - self._filled) * rate / MINUTE)
        self._filled = now
        if self._tokens < 1:
            raise QueueFull(
                f"This key may send {rate} requests a minute.",
                code="rate_limit_exceeded",
                retry_after=(1 - self._tokens) * MINUTE / rate,
            )
        self._tokens -= 1


class Caller:
    """The key behind one request; ``end`` gives its place back."""

    def __init__(self, usage: Usage, canonical: Canonical, *, apart: bool = False) -> None:
        self._usage = usage
        self._canonical = canonical
        self._open = True
        self.apart = apart
        """Whether prefixes are kept apart from those of other keys."""

    def allows(self, model: str) -> bool:
        """Whether the key may use the model of this id."""
        return any(fnmatchcase(model, pattern) for pattern in self._usage.key.models)

    def check(self, data: Any) -> None:
        """Raises :class:`Forbidden` if a body names a model that the key may not use."""
        if isinstance(data, ModelField) and not self.allows(self._canonical(data.model)):
            raise Forbidden("This key may not use that model. GET /v1/models lists those it may.", param="model")

    @property
    def owner(self) -> bytes:
        """What belongs to the key and to no other."""
        return self._usage.key.digest

    def end(self) -> None:
        """The request has ended. Safe to call twice."""
        if self._open:
            self._open = False
            self._usage.running -= 1


class Access:
    """The keys in force. Without any, everybody has every right. ``apart`` says that each has its own prefixes."""

    def __init__(self, keys: tuple[ApiKey, ...], canonical: Canonical, *, apart: bool = False) -> None:
        self._canonical = canonical
        self._apart = apart
        self._usages: dict[bytes, Usage] = {}
        self.replace(keys)

    def replace(self, keys: tuple[ApiKey, ...]) -> None:
        """Take other keys; one that stays the same keeps what it has used."""
        old = self._usages
        self._usages = {
            key.digest: old[key.digest] if key.digest in old and old[key.digest].key == key else Usage(key)
            for key in keys
        }

    def guard(self, scope: Scope) -> Guard:
        """A Litestar guard for routes that need ``scope``."""

        async def guard(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
            self._admit(connection, scope)

        return guard

    def _admit(self, connection: ASGIConnection[Any, Any, Any, Any], scope: Scope) -> None:
        if not self._usages:
            return
        usage = self._find(_sent(connection))
        if scope not in usage.key.scopes:
            raise Forbidden(f"This key has not the scope '{scope}'. Use another, or have it given to this one.")
        usage.take()
        connection.scope.setdefault("state", {})["caller"] = Caller(usage, self._canonical, apart=self._apart)
        record_of(connection.scope).key = usage.key.name

    def _find(self, sent: list[str]) -> Usage:
        """Every digest is compared, each in constant time, so that the time taken tells nothing of a key."""
        digests = [digest_of(key) for key in sent]
        found = [usage for known, usage in self._usages.items() for it in digests if compare_digest(it, known)]
        if not found:
            raise Unauthorized("Send a valid API key in the header 'Authorization: Bearer KEY', or in 'x-api-key'.")
        return found[0]


def _sent(connection: ASGIConnection[Any, Any, Any, Any]) -> list[str]:
    """The keys of a request: OpenAI's clients send one as a bearer token, Anthropic's in a header of its own."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    keys = [token] if scheme.lower() == "bearer" else []
    return [key.strip() for key in (*keys, *connection.headers.getall("x-api-key", []))]


def caller_of(scope: Any) -> Caller | None:
    """The caller of a running request; None where no keys are needed."""
    caller = scope.get("state", {}).get("caller")
    return caller if isinstance(caller, Caller) else None


def owner_of(scope: Any) -> bytes:
    """Whose a request is, for what is kept apart by key; the same for everybody where no keys are needed."""
    caller = caller_of(scope)
    return b"" if caller is None else caller.owner


def prefixes_of(scope: Any) -> bytes:
    """Whose prefixes a request uses and adds to; the same for everybody unless they are kept apart by key."""
    caller = caller_of(scope)
    return caller.owner if caller is not None and caller.apart else b""
