"""Models that the hub lists for some words: what is asked, and what of the answer is understood."""

import msgspec
from msgspec import Struct

from app.errors import ModelNotFound
from app.registry.hub.names import check_repo

BYTES = {
    "F64": 8.0, "I64": 8.0, "U64": 8.0, "F32": 4.0, "I32": 4.0, "U32": 4.0, "F16": 2.0, "BF16": 2.0, "I16": 2.0,
    "U16": 2.0, "F8_E4M3": 1.0, "F8_E5M2": 1.0, "I8": 1.0, "U8": 1.0, "BOOL": 1.0, "F4": 0.5,
}  # fmt: skip
"""What an element takes, by the names of safetensors. Packed values are counted as the words that hold them."""
EXPANDED = ("downloads", "gated", "safetensors")
ASKED = 3
"""Times as many are asked for as are wanted: some of them cannot be loaded here."""


class Found(Struct, frozen=True):
    """A repository: ``nbytes`` of its weights, None where the hub does not know; ``gated`` wants a licence accepted."""

    repo: str
    nbytes: int | None
    downloads: int
    gated: bool


class _Safetensors(Struct):
    parameters: dict[str, int] = {}


class _Listed(Struct):
    """An entry of ``GET /api/models``, the part of it that is used."""

    id: str
    downloads: int = 0
    gated: bool | str = False
    safetensors: _Safetensors | None = None


def parameters(words: str, limit: int, *, every: bool) -> tuple[tuple[str, str], ...]:
    """The query: models with ``words`` in their names, most downloaded first; made for MLX, or ``every`` one."""
    asked = (("search", words), ("sort", "downloads"), ("direction", "-1"), ("limit", str(ASKED * limit)))
    return *asked, ("filter", "safetensors" if every else "mlx"), *(("expand", it) for it in EXPANDED)


def listed(content: bytes, limit: int) -> tuple[Found, ...]:
    """Those that have safetensors, in the hub's order; raises ``msgspec.DecodeError`` for what is no list of models."""
    found = msgspec.json.decode(content, type=list[_Listed])
    kept = [it for it in found if it.safetensors is not None and _is_repo(it.id)]
    return tuple(Found(it.id, _nbytes(it.safetensors), max(it.downloads, 0), bool(it.gated)) for it in kept[:limit])


def _is_repo(name: str) -> bool:
    try:
        check_repo(name)
    except ModelNotFound:
        return False
    return True


def _nbytes(found: _Safetensors | None) -> int | None:
    if found is None or not found.parameters or not found.parameters.keys() <= BYTES.keys():
        return None
    return int(sum(BYTES[name] * max(count, 0) for name, count in found.parameters.items())) or None
