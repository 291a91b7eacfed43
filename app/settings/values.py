"""One value of one setting, from what TOML, the environment or a flag holds to what the struct holds."""

import math
from collections.abc import Callable
from pathlib import Path

import msgspec

from app.settings.fields import Field, Kind
from app.settings.problem import SettingsProblem
from app.settings.sizes import parse_size

_SWITCH = {"1": True, "true": True, "0": False, "false": False}


def from_text(field: Field, text: str, where: str, base: Path) -> object:
    """The value that ``text`` spells; lists are separated by commas. Raises SettingsProblem, as ``from_toml``."""
    parse: Callable[[str], object]
    match field.kind:
        case Kind.TEXTS | Kind.PATHS:
            return from_toml(field, [part.strip() for part in text.split(",") if part.strip()], where, base)
        case Kind.SWITCH:
            parse = _switch
        case Kind.NUMBER:
            parse = int
        case Kind.DECIMAL:
            parse = str if text.strip().lower() == "auto" else float
        case Kind.SIZE | Kind.TEXT | Kind.CHOICE | Kind.FILE:
            parse = str
    try:
        value = parse(text.strip())
    except ValueError:
        raise _problem(field, text, where) from None
    return from_toml(field, value, where, base)


def from_toml(field: Field, value: object, where: str, base: Path) -> object:
    """``value`` as the struct holds it, or SettingsProblem that says where it stands and what is allowed.

    Relative paths count from ``base``. ``auto`` stands for None in sizes, numbers and texts that are worked out when
    left open, an empty text for no file.
    """
    if field.kind is Kind.FILE and value == "":
        return None
    open_ended = field.optional and field.kind in {Kind.SIZE, Kind.DECIMAL, Kind.TEXT}
    if open_ended and isinstance(value, str) and value.strip().lower() == "auto":
        return None
    if field.kind is Kind.SIZE and isinstance(value, str):
        try:
            value = parse_size(value)
        except ValueError:
            raise _problem(field, value, where) from None
    try:
        checked: object = msgspec.convert(value, type=field.type, dec_hook=_path)
    except (msgspec.ValidationError, NotImplementedError):
        raise _problem(field, value, where) from None
    if isinstance(checked, float) and not math.isfinite(checked):
        raise _problem(field, value, where)
    if field.kind is Kind.PATHS and isinstance(checked, tuple):
        return tuple(_directory(path, where, base) for path in checked)
    if isinstance(checked, Path) and field.folder:
        return base / checked.expanduser()
    if isinstance(checked, Path):
        return _new_file(checked, where, base) if field.made else _file(checked, where, base)
    return checked


def _switch(text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise ValueError(text)
    return _SWITCH[text.lower()]


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    raise NotImplementedError


def _directory(path: Path, where: str, base: Path) -> Path:
    full = base / path.expanduser()
    if not full.is_dir():
        raise SettingsProblem(f"{where}: there is no directory {full}; create it or name another")
    return full.resolve()


def _new_file(path: Path, where: str, base: Path) -> Path:
    full = base / path.expanduser()
    if not full.exists():
        _directory(full.parent, where, base)
        return full.resolve()
    return _file(full, where, base)


def _file(path: Path, where: str, base: Path) -> Path:
    full = base / path.expanduser()
    try:
        with full.open("rb"):
            return full.resolve()
    except OSError as failure:
        raise SettingsProblem(f"{where}: {full} cannot be read ({failure.strerror}); name another file") from None


def _problem(field: Field, value: object, where: str) -> SettingsProblem:
    shown = "the value given" if field.secret else msgspec.json.encode(value, enc_hook=str).decode()
    return SettingsProblem(f"{where}: {shown} is not allowed; expected {field.allowed}")
