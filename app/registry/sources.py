"""Where a model comes from: the package itself, a directory of this machine, the hub, or an adapter on one of them."""

from pathlib import Path

from msgspec import Struct

from app.settings import ModelEntry


class Embedded(Struct, frozen=True, kw_only=True):
    """The default model, made from a file that comes with the installation."""

    id: str
    entry: ModelEntry = ModelEntry()


class LocalDirectory(Struct, frozen=True, kw_only=True):
    """A model directory below a configured root; ``created`` is its configuration's, in seconds since 1970."""

    id: str
    path: Path
    created: int
    entry: ModelEntry = ModelEntry()


class HubRepo(Struct, frozen=True, kw_only=True):
    """A repo of the hub at a branch, a tag or a commit (None: its default)."""

    id: str
    repo: str
    revision: str | None = None
    entry: ModelEntry = ModelEntry()


class Adapted(Struct, frozen=True, kw_only=True):
    """A LoRA adapter's directory, and the model that it adapts and shares weights with."""

    id: str
    base: Embedded | LocalDirectory | HubRepo
    path: Path
    entry: ModelEntry = ModelEntry()


Source = Embedded | LocalDirectory | HubRepo | Adapted
