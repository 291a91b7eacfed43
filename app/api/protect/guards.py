"""Guards that are no matter of keys. Coroutines, like all guards here: Litestar runs others on threads."""

from typing import Any
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from app.errors import Forbidden


async def own_pages_only(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """A guard that lets no page of another site act on this machine; programs send no ``Origin`` and pass."""
    origin = connection.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != connection.headers.get("host"):
        raise Forbidden("Pages of other sites may not use /admin. Open the page that this service serves itself.")
