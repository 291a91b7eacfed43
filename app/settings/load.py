"""Where settings come from: ``config/default.toml``, a file, the environment, flags; the later one wins.

Model entries come from ``models.toml`` beside the file that was named, or else from the one the package carries.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from app.settings.fields import Field, model_fields, setting_fields
from app.settings.model_entry import ModelEntry
from app.settings.problem import SettingsProblem
from app.settings.settings_model import Settings
from app.settings.values import from_text, from_toml

CONFIG = Path(__file__).parents[2] / "config"
"""The package's own TOML files; they lie beside ``app`` in a checkout and in an installed package alike."""

CONFIG_VARIABLE = "SWITCHYARD_CONFIG"
_NOT_SETTINGS = frozenset(
    {CONFIG_VARIABLE, "SWITCHYARD_BACKEND", "SWITCHYARD_PYTHON", "SWITCHYARD_URL", "SWITCHYARD_KEY"}
)
"""Variables with the prefix that are no settings: the file to read, what ``docker-free-run.sh`` understands, and which
service the commands talk to with which key."""

CHANGED = {
    "watchdog_timeout": "now ends the process of the model that hangs, and no longer the service",
    "prefix_cache": "is now shared out among the models in memory, each of which has its own caches",
}
"""What changed its meaning with version 0.2, where models got processes of their own."""

FlagValue = str | bool | Sequence[str]


class Effective(Struct, frozen=True):
    """The settings in force, and for each of them where its value was written."""

    settings: Settings
    origins: dict[str, str]

    @property
    def changed(self) -> list[str]:
        """A line for each setting that somebody has set and that means something else since version 0.2."""
        return [
            f"{origin}: {name} {CHANGED[name]}"
            for name, origin in self.origins.items()
            if name in CHANGED and not origin.startswith(str(CONFIG / "default.toml"))
        ]


def load(
    flags: Mapping[str, FlagValue], environ: Mapping[str, str], config: Path | None = None, *, here: Path
) -> Effective:
    """The settings in force. Raises SettingsProblem for the first thing that is wrong.

    ``flags`` holds only the flags that were given, by setting name. ``config`` is the file that was asked for; without
    it, ``SWITCHYARD_CONFIG`` may name one. ``here`` is the directory that relative paths in flags and environment
    count from; those in a file count from the file's directory.
    """
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    if config is None and environ.get(CONFIG_VARIABLE):
        config = here / environ[CONFIG_VARIABLE]
    layers = [_from_file(CONFIG / "default.toml")]
    if config is not None:
        layers.append(_from_file(config))
    layers += [_from_environment(environ, here), _from_flags(flags, here)]
    for layer in layers:
        for name, (value, origin) in layer.items():
            values[name], origins[name] = value, origin
    models = _models_file(config)
    values["models"], origins["models"] = read_models(models), str(models)
    return Effective(msgspec.convert(values, Settings), origins)


def read_models(path: Path) -> dict[str, ModelEntry]:
    """The entries of a ``models.toml``. Raises SettingsProblem."""
    document = _toml(path)
    _known(document, ["models"], str(path), "table")
    tables = document.get("models", {})
    if not isinstance(tables, dict):
        raise SettingsProblem(f'{path}: models must be tables such as [models."org/name"]')
    return {name: _entry(name, table, path) for name, table in tables.items()}


def _entry(name: str, table: object, path: Path) -> ModelEntry:
    where = f'{path}: [models."{name}"]'
    if not isinstance(table, dict):
        raise SettingsProblem(f"{where}: must be a table")
    fields = model_fields()
    _known(table, fields, where, "key")
    values = {key: from_toml(fields[key], value, f"{where} {key}", path.parent) for key, value in table.items()}
    divided = next((key for key in ("ranks", "hosts") if values.get(key) is not None), None)
    other = next((key for key in ("hosts", "draft_model", "pooling") if key != divided and values.get(key)), None)
    if divided is not None and other is not None and values[other] != "prompt-lookup":
        raise SettingsProblem(f"{where}: {other} does not go with {divided}")
    return msgspec.convert(values, ModelEntry, dec_hook=lambda _, value: value)


_Layer = dict[str, tuple[object, str]]


def _from_file(path: Path) -> _Layer:
    document = _toml(path)
    if "models" in document:
        raise SettingsProblem(f"{path}: models belong into a file named models.toml beside this one")
    fields = setting_fields()
    _known(document, fields, str(path), "setting")
    base = path.absolute().parent
    return {
        name: (from_toml(fields[name], value, f"{path}: {name}", base), str(path)) for name, value in document.items()
    }


def _from_environment(environ: Mapping[str, str], here: Path) -> _Layer:
    fields = {field.variable: field for field in setting_fields().values()}
    given = {name: text for name, text in environ.items() if name.startswith("SWITCHYARD_")}
    _known(given.keys() - _NOT_SETTINGS, fields, "environment", "variable")
    return {
        fields[name].name: (from_text(fields[name], text, f"environment: {name}", here), f"environment {name}")
        for name, text in given.items()
        if name in fields
    }


def _from_flags(flags: Mapping[str, FlagValue], here: Path) -> _Layer:
    fields = setting_fields()
    return {name: (_flag(fields[name], value, here), f"flag {fields[name].flag}") for name, value in flags.items()}


def _flag(field: Field, value: FlagValue, here: Path) -> object:
    where = f"{field.flag}"
    if isinstance(value, str):
        return from_text(field, value, where, here)
    return from_toml(field, value, where, here)


def _models_file(config: Path | None) -> Path:
    if config is not None and (beside := config.parent / "models.toml").is_file():
        return beside
    return CONFIG / "models.toml"


def _toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsProblem(f"{path}: there is no such file") from None
    except OSError as failure:
        raise SettingsProblem(f"{path}: cannot be read ({failure.strerror})") from None
    except UnicodeDecodeError:
        raise SettingsProblem(f"{path}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as failure:
        raise SettingsProblem(f"{path}: is not valid TOML: {failure}") from None


def _known(names: Iterable[str], allowed: Iterable[str], where: str, noun: str) -> None:
    choices = sorted(allowed)
    for name in sorted(set(names) - set(choices)):
        close = difflib.get_close_matches(name, choices, n=1)
        hint = f"did you mean {close[0]}?" if close else f"allowed are {', '.join(choices)}"
        raise SettingsProblem(f"{where}: there is no {noun} {name}; {hint}")
