"""``switchyard config show``: the settings in force and where each of them was written."""

import os

import msgspec
import rich_click as click

from app.cli.options import Given, effective_settings, settings_options
from app.cli.reach import json_option
from app.cli.words import table
from app.settings.fields import Field, setting_fields
from app.settings.reference import written


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command()
@settings_options
@json_option
def show(config: str | None, *, as_json: bool, **given: Given) -> None:
    """Show every setting that serve would run with, and where its value comes from. Secrets are not shown."""
    found = effective_settings(config, dict(os.environ), given)
    values = {name: _shown(field, getattr(found.settings, name)) for name, field in setting_fields().items()}
    if as_json:
        listed = {name: {"value": value, "origin": found.origins[name]} for name, value in values.items()}
        click.echo(msgspec.json.encode(listed))
        return
    click.echo(table(("SETTING", "VALUE", "FROM"), [(it, value, found.origins[it]) for it, value in values.items()]))
    click.echo(f"\nmodels: {', '.join(found.settings.models) or 'none'} (from {found.origins['models']})")


def _shown(field: Field, value: object) -> str:
    if field.secret:
        return "(set)" if value else "(not set)"
    return written(field, value)
