"""Cross-origin requests, for the sites that the settings name; off without any.

Source: the Fetch standard's CORS protocol. Credentials are never allowed: keys travel in the Authorization header.
"""

import re

from app.observability import Message, Scope, Send

NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")
"""A list of header names, as RFC 9110 spells them."""
USUAL = "authorization, content-type, x-request-id, x-api-key, anthropic-version, anthropic-beta"
EXPOSED = b"x-request-id, request-id, retry-after, openai-processing-ms, server-timing, x-switchyard-ignored"


class Cors:
    """The sites that may, as ``scheme://host[:port]``, and what they are told."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)

    def allows(self, origin: str) -> bool:
        """Whether pages of that site may use the service."""
        return origin.lower() in self._origins

    def is_preflight(self, scope: Scope, origin: str | None) -> bool:
        """Whether a browser asks beforehand, for a site that may."""
        if scope["method"] != "OPTIONS" or origin is None or not self.allows(origin):
            return False
        return any(name == b"access-control-request-method" for name, _ in scope["headers"])

    async def preflight(self, scope: Scope, send: Send) -> None:
        """Say yes, to whatever headers the page wants to send: clients have many of their own, and none is secret."""
        asked = b", ".join(it for name, it in scope["headers"] if name == b"access-control-request-headers")
        wanted = asked.decode("latin-1").strip()
        headers = [
            (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
            (b"access-control-allow-headers", (wanted if NAMES.fullmatch(wanted) else USUAL).encode()),
            (b"access-control-max-age", b"600"),
            (b"content-length", b"0"),
        ]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def wrap(self, origin: str | None, send: Send) -> Send:
        """``send`` that lets the site's pages read the answer."""
        if origin is None or not self.allows(origin):
            return send

        async def allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    (b"access-control-allow-origin", origin.encode("latin-1")),
                    (b"vary", b"origin, access-control-request-headers"),
                ]
                headers.append((b"access-control-expose-headers", EXPOSED))
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        return allowed
