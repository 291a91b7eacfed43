"""The settings seen as a list of fields: name, kind of value, description, limits.

Flags, environment, TOML and the reference all work from this list, so that a new setting is one line in ``shape``.
"""

from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import Meta, Struct

from app.settings.model_entry import ModelEntry
from app.settings.settings_model import Settings


class Kind(Enum):
    """How a value is written down."""

    SWITCH = "switch"
    NUMBER = "number"
    DECIMAL = "decimal"
    SIZE = "size"
    TEXT = "text"
    CHOICE = "choice"
    TEXTS = "texts"
    PATHS = "paths"
    FILE = "file"


class Field(Struct, frozen=True):
    """One setting. ``type`` is what msgspec checks a value against; ``allowed`` says the same to a person.

    A file that is ``made`` need not be there yet; with ``folder`` it is a directory, looked at when it is used.
    """

    name: str
    kind: Kind
    type: object
    optional: bool
    secret: bool
    made: bool
    folder: bool
    description: str
    allowed: str

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return f"SWITCHYARD_{self.name.upper()}"

    @property
    def flag(self) -> str | None:
        """Its name on the command line: lists are given one at a time; a secret has none, since ``ps`` shows flags."""
        if self.secret:
            return None
        name = self.name.removesuffix("s") if self.kind in {Kind.TEXTS, Kind.PATHS} else self.name
        return "--" + name.replace("_", "-")


@cache
def setting_fields() -> dict[str, Field]:
    """The fields of ``Settings`` by name, without ``models``, which has a file of its own."""
    return {name: field for name, field in _fields(Settings).items() if name != "models"}


@cache
def model_fields() -> dict[str, Field]:
    """The fields of ``ModelEntry`` by name."""
    return _fields(ModelEntry)


def _fields(struct: type[Struct]) -> dict[str, Field]:
    hints = get_type_hints(struct, include_extras=True)
    return {name: _field(name, hint) for name, hint in hints.items() if get_origin(hint) is Annotated}


def _field(name: str, hint: object) -> Field:
    optional, inner, metas = _unwrap(hint)
    kind = _kind(inner, metas)
    return Field(
        name=name,
        kind=kind,
        type=hint,
        optional=optional,
        secret=_said(metas, "secret"),
        made=_said(metas, "made"),
        folder=_said(metas, "folder"),
        description=next((meta.description for meta in metas if meta.description is not None), ""),
        allowed=_allowed(kind, inner, metas, optional=optional),
    )


def _said(metas: list[Meta], word: str) -> bool:
    return any(meta.extra is not None and meta.extra.get(word) is True for meta in metas)


def _unwrap(hint: object) -> tuple[bool, object, list[Meta]]:
    """Whether None is allowed, the bare type, and every Meta around it."""
    if get_origin(hint) is Annotated:
        base, *notes = get_args(hint)
        optional, inner, metas = _unwrap(base)
        return optional, inner, [*metas, *(note for note in notes if isinstance(note, Meta))]
    if get_origin(hint) in {Union, UnionType}:
        (base,) = (arm for arm in get_args(hint) if arm is not NoneType)
        _, inner, metas = _unwrap(base)
        return True, inner, metas
    return False, hint, []


def _kind(inner: object, metas: list[Meta]) -> Kind:
    if any(meta.extra is not None and meta.extra.get("unit") == "bytes" for meta in metas):
        return Kind.SIZE
    if get_origin(inner) is Literal:
        return Kind.CHOICE
    if get_origin(inner) is tuple:
        return Kind.PATHS if get_args(inner)[0] is Path else Kind.TEXTS
    plain = {bool: Kind.SWITCH, int: Kind.NUMBER, float: Kind.DECIMAL, str: Kind.TEXT, Path: Kind.FILE}
    return plain[inner]  # type: ignore[index]


def _allowed(kind: Kind, inner: object, metas: list[Meta], *, optional: bool) -> str:
    file = "directory" if _said(metas, "folder") else "file"
    words = {
        Kind.SWITCH: "true or false",
        Kind.SIZE: "a size such as 12GB, 512MiB or plain bytes" + (", or auto" if optional else ""),
        Kind.TEXT: "a text that is not empty",
        Kind.TEXTS: "a list of texts that are not empty",
        Kind.PATHS: "a list of directories",
        Kind.FILE: f"a {file}, which is made if it is missing" if _said(metas, "made") else "a file",
        Kind.CHOICE: "one of " + ", ".join(str(word) for word in get_args(inner)),
        Kind.NUMBER: "a whole number" + _bounds(metas),
        Kind.DECIMAL: "a number" + _bounds(metas) + (", or auto" if optional else ""),
    }
    return next((meta.extra["allowed"] for meta in metas if meta.extra and "allowed" in meta.extra), words[kind])


def _bounds(metas: list[Meta]) -> str:
    words = [
        f"{word} {bound:g}"
        for meta in metas
        for word, bound in (("above", meta.gt), ("from", meta.ge), ("below", meta.lt), ("up to", meta.le))
        if bound is not None
    ]
    return "".join(f" {word}" for word in words)
