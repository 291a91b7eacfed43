"""``switchyard cache``: what is kept on disk of prompts that models have computed."""

import os
import time
from math import inf
from pathlib import Path

import msgspec
import rich_click as click
from msgspec import Struct

from app.cli.options import Given, effective_settings, settings_options
from app.cli.reach import json_option
from app.cli.words import size, span, table
from app.engine.disk.folder import bound, clear, kept
from app.engine.paths import prefixes_home
from app.settings import Settings


class Model(Struct):
    """The files of one model, which is known by what it was computed with: files, bytes, seconds since the last use."""

    model: str
    files: int = 0
    nbytes: int = 0
    idle_seconds: float = 0.0


class Shown(Struct):
    """All of it; ``limit`` in bytes."""

    folder: str
    limit: int
    models: list[Model]


@click.group()
def cache() -> None:
    """Look at the prefixes that are kept on disk, or remove them."""


@cache.command()
@settings_options
@json_option
def show(config: str | None, *, as_json: bool, **given: Given) -> None:
    """Show where they are, how much they may hold, and what there is of each model."""
    settings = effective_settings(config, dict(os.environ), given).settings
    folder = _folder(settings)
    limit = bound(folder) if settings.disk_cache is None else settings.disk_cache
    shown = Shown(str(folder), limit, _models(folder))
    if as_json:
        click.echo(msgspec.json.encode(shown))
        return
    held = sum(model.nbytes for model in shown.models)
    click.echo(f"{folder}: {size(held)} of {size(limit)}" + ("" if limit else "; nothing is written"))
    rows = [(it.model, str(it.files), size(it.nbytes), span(it.idle_seconds)) for it in shown.models]
    if rows:
        click.echo(table(("MODEL", "FILES", "SIZE", "LAST USED"), rows))


@cache.command(name="clear")
@settings_options
@json_option
def clear_(config: str | None, *, as_json: bool, **given: Given) -> None:
    """Remove all of them; a service that runs computes again what it does not find."""
    files, nbytes = clear(_folder(effective_settings(config, dict(os.environ), given).settings))
    if as_json:
        click.echo(msgspec.json.encode({"files": files, "freed": nbytes}))
    else:
        click.echo(f"{files} files removed, {size(nbytes)}")


def _folder(settings: Settings) -> Path:
    return prefixes_home() if settings.disk_cache_dir is None else settings.disk_cache_dir


def _models(folder: Path) -> list[Model]:
    """Those used last first."""
    found: dict[str, Model] = {}
    now = time.time()
    for it in kept(folder):
        model = found.setdefault(it.path.parent.name, Model(it.path.parent.name, idle_seconds=inf))
        model.files += 1
        model.nbytes += it.nbytes
        model.idle_seconds = max(0.0, min(model.idle_seconds, now - it.used / 1e9))
    return sorted(found.values(), key=lambda model: model.idle_seconds)
