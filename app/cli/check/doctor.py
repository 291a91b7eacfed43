"""``switchyard doctor``."""

import os
import sys
from pathlib import Path

import rich_click as click

from app.cli.exits import Exit
from app.cli.options import effective_settings

COLOURS = {"ok": "green", "look": "yellow", "bad": "red"}


@click.command()
@click.option("--config", "config", metavar="FILE", help="A TOML file with the settings you change.")
def doctor(config: str | None) -> None:
    """Look whether this machine can run the service: backend, memory, keys, port, disk, models, clients, hub.

    Nothing is changed. The exit code is 1 if something keeps the service from starting.
    """
    settings = effective_settings(config, dict(os.environ), {}).settings

    from app.cli.check.checkup import findings  # noqa: PLC0415  psutil and urllib take long to import

    click.echo(f"{click.style('ok  ', fg='green')} settings     {config or 'as the package carries them'}")
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    models = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    worst = Exit.DONE
    for finding in findings(settings, models):
        click.echo(
            f"{click.style(f'{finding.verdict:4}', fg=COLOURS[finding.verdict])} {finding.what:12} {finding.said}"
        )
        if finding.verdict == "bad":
            worst = Exit.FAILED
    sys.exit(worst)
