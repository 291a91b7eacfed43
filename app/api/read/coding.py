"""Bodies that a client has compressed, undone within the limit that bodies have."""

import zlib

from litestar.exceptions import HTTPException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from app.errors import InvalidRequest

WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's number for each coding of HTTP that it knows."""
ACCEPTED = ", ".join(name for name in WINDOWS if not name.startswith("x-"))


class UnknownCoding(HTTPException):
    """The body is compressed in a way that is not known here."""

    status_code = 415

    def __init__(self, coding: str) -> None:
        super().__init__(
            f"Content-Encoding: {coding[:32]} is not understood; send the body as it is, or as {ACCEPTED}.",
            headers={"accept-encoding": ACCEPTED},
        )


def decoded(body: bytes, coding: str, limit: float) -> bytes:
    """``body`` without its ``coding``, a Content-Encoding header.

    Raises :class:`UnknownCoding`, RequestEntityTooLarge for more than ``limit`` bytes, and :class:`InvalidRequest` for
    what is broken.
    """
    for name in reversed([it.strip().lower() for it in coding.split(",")]):
        if name in {"", "identity"}:
            continue
        if name not in WINDOWS:
            raise UnknownCoding(name)
        body = _inflated(body, name, limit)
    return body


def _inflated(body: bytes, name: str, limit: float) -> bytes:
    """All members of a gzip file; of deflate also the kind without a head, which some clients send."""
    windows = WINDOWS[name]
    if name == "deflate" and (len(body) < 2 or int.from_bytes(body[:2]) % 31 or body[0] & 15 != 8):
        windows = -15
    decoded = b""
    while body:
        machine = zlib.decompressobj(windows)
        try:
            decoded += machine.decompress(body, 1 + int(min(limit, 1 << 40)) - len(decoded))
        except zlib.error:
            raise InvalidRequest(f"The body is not what Content-Encoding says: it is no {name}.") from None
        if len(decoded) > limit:
            raise RequestEntityTooLarge
        if not machine.eof:
            raise InvalidRequest(f"The body is not whole: its {name} has no end.")
        body = machine.unused_data
    return decoded
