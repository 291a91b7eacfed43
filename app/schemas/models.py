"""``GET /v1/models``."""

from typing import Literal

from msgspec import Struct


class ModelCard(Struct, frozen=True, kw_only=True):
    """A model that may be asked for. ``aliases`` are other names of it; ``owned_by`` is the organisation in its id."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    aliases: tuple[str, ...] = ()


class ModelList(Struct, frozen=True, kw_only=True):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(Struct, frozen=True):
    """Whether the service answers, and takes requests."""

    status: Literal["ok", "loading", "draining", "failed"] = "ok"
