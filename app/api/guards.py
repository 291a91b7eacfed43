"""Who may ask."""

from hashlib import sha256
from hmac import compare_digest
from typing import Any
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from app.errors import Forbidden, Unauthorized


def api_key_guard(keys: tuple[str, ...]) -> Guard:
    """A guard that wants one of ``keys`` as a bearer token; without keys everybody passes.

    Digests are compared, all of them and in constant time, so that the time taken tells nothing of a key.
    """
    digests = [sha256(key.encode()).digest() for key in keys]

    def guard(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
        if not digests:
            return
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        sent = sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        known = [compare_digest(sent, digest) for digest in digests]
        if scheme.lower() != "bearer" or not any(known):
            raise Unauthorized("Send a valid API key in the header 'Authorization: Bearer KEY'.")

    return guard


def own_pages_only(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """A guard that lets no page of another site act on this machine; programs send no ``Origin`` and pass."""
    origin = connection.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != connection.headers.get("host"):
        raise Forbidden("Pages of other sites may not use /admin. Open the page that this service serves itself.")
