"""The page at ``/``, the API reference at ``/docs`` and their files, from memory and under a strict policy."""

import mimetypes
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from litestar import Controller, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from msgspec import Struct

import app.page

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
SUFFIXES = {".html", ".css", ".js", ".svg"}


class Asset(Struct, frozen=True):
    """One file. ``etag`` changes with its contents."""

    body: bytes
    media_type: str
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """Every file of the page by its path with forward slashes; read once. Nothing else can be asked for."""
    root = Path(app.page.__file__).parent
    return {path.relative_to(root).as_posix(): _asset(path) for path in root.rglob("*") if path.suffix in SUFFIXES}


class PageController(Controller):
    """Needs no API key: the files hold nothing that is secret, and the page asks for the key itself."""

    include_in_schema = False

    @get("/")
    async def index(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """Playground and machine."""
        return _answer(request, "index.html")

    @get("/docs")
    async def reference(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """The API, read from the OpenAPI document."""
        return _answer(request, "docs.html")

    @get("/page/{name:path}")
    async def file(self, request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        """Scripts, styles, pictures."""
        return _answer(request, name.removeprefix("/"))


def _answer(request: Request[Any, Any, Any], name: str) -> Response[bytes]:
    asset = assets().get(name)
    if asset is None:
        raise NotFoundException
    headers = {**HEADERS, "etag": asset.etag}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(b"", status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)


def _asset(path: Path) -> Asset:
    body = path.read_bytes()
    kind = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(path.name)[0] or "text/plain"
    return Asset(body, kind, f'"{sha256(body).hexdigest()[:32]}"')
