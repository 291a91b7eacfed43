"""Flags for every setting, made from the settings' fields."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import rich_click as click

from app.cli.exits import Exit, leave
from app.settings.fields import Field, Kind, setting_fields
from app.settings.load import Effective, FlagValue, load
from app.settings.problem import SettingsProblem
from app.settings.reference import written_default

_METAVARS = {
    Kind.NUMBER: "N",
    Kind.DECIMAL: "X",
    Kind.SIZE: "SIZE",
    Kind.TEXT: "TEXT",
    Kind.TEXTS: "TEXT",
    Kind.PATHS: "DIR",
    Kind.FILE: "FILE",
}

F = TypeVar("F", bound=Callable[..., object])

Given = str | bool | tuple[str, ...] | None
"""What click hands over for one flag: None or an empty tuple when it was not given."""


def settings_options(command: F) -> F:
    """Give a command ``--config`` and a flag for every setting that may stand on a command line."""
    for field in reversed(setting_fields().values()):
        if field.flag is not None:
            command = _option(field, field.flag)(command)
    return click.option("--config", "config", metavar="FILE", help="A TOML file with the settings you change.")(command)


def effective_settings(config: str | None, environ: dict[str, str], given: dict[str, Given]) -> Effective:
    """The settings in force for a command; ends the process with one line when something is wrong."""
    flags: dict[str, FlagValue] = {name: value for name, value in given.items() if value is not None and value != ()}
    here = Path.cwd()
    try:
        return load(flags, environ, None if config is None else here / config, here=here)
    except SettingsProblem as problem:
        leave(Exit.USAGE, str(problem))


def _option(field: Field, flag: str) -> Callable[[F], F]:
    text = f"{field.description} Default: {written_default(field)}"
    if field.kind is Kind.SWITCH:
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, default=None, help=text)
    several = field.kind in {Kind.TEXTS, Kind.PATHS}
    if field.kind is Kind.CHOICE:
        metavar = field.allowed.removeprefix("one of ").replace(", ", "|")
    else:
        metavar = _METAVARS[field.kind]
    if several:
        text = f"{text}; repeatable"
    return click.option(flag, field.name, metavar=metavar, multiple=several, default=None, help=text)
