"""API keys: who may do what, how often and with which models. A key itself is kept nowhere, only its SHA-256."""

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from app.settings.problem import SettingsProblem
from app.settings.settings_model import Settings

Scope = Literal["infer", "admin", "metrics"]
SCOPES: tuple[Scope, ...] = ("infer", "admin", "metrics")

_Limit = Annotated[int, Meta(ge=1)]


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """One table of a key file. ``models`` are shell patterns of model ids; a limit that is left out does not limit."""

    hash: Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
    scopes: tuple[Scope, ...] = ("infer",)
    models: tuple[str, ...] = ("*",)
    requests_per_minute: _Limit | None = None
    concurrent_requests: _Limit | None = None


class _KeyFile(Struct, frozen=True, forbid_unknown_fields=True):
    keys: dict[str, Entry] = {}


class ApiKey(Struct, frozen=True):
    """One key: ``name`` is what logs say of it."""

    name: str
    digest: bytes
    scopes: frozenset[str]
    models: tuple[str, ...] = ("*",)
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None


def digest_of(key: str) -> bytes:
    """What is kept of a key. One hash is enough for keys that were drawn from 256 bits of chance."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def read_keys(settings: Settings) -> tuple[ApiKey, ...]:
    """Every key that is accepted: those of ``api_keys`` with all rights, then those of ``key_file``.

    Raises :class:`SettingsProblem` for a file that is wrong; its message holds no hash.
    """
    own = [
        ApiKey(f"api_keys[{number}]", digest_of(key), frozenset(SCOPES)) for number, key in enumerate(settings.api_keys)
    ]
    filed = read_file(settings.key_file) if settings.key_file is not None else {}
    return (
        *own,
        *(
            ApiKey(
                name,
                bytes.fromhex(entry.hash.removeprefix("sha256:")),
                frozenset(entry.scopes),
                entry.models,
                entry.requests_per_minute,
                entry.concurrent_requests,
            )
            for name, entry in filed.items()
        ),
    )


def read_file(path: Path) -> dict[str, Entry]:
    """The tables of a key file by name. Raises :class:`SettingsProblem`."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _KeyFile).keys
    except OSError as failure:
        raise SettingsProblem(f"{path}: cannot be read ({failure.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise SettingsProblem(f"{path}: is not valid TOML") from None
    except msgspec.ValidationError as failure:
        where = re.search(r"`\$(.*)`", str(failure))
        place = where[1].removeprefix(".") if where else ""
        raise SettingsProblem(f"{path}: {place or 'a key'} is wrong; let `switchyard key` write entries") from None
