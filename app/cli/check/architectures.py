"""Which families of models load here, asked of mlx-lm in a process of its own: the command line has no MLX."""

import subprocess
import sys
from functools import cache

import msgspec
import rich_click as click

from app.cli.exits import Exit, leave
from app.cli.reach import json_option
from app.cli.words import table
from app.engine.kind import ENCODERS

PROGRAM = """
import json, pathlib, pkgutil
import mlx_lm.models
from mlx_lm.utils import MODEL_REMAPPING
(place,) = mlx_lm.models.__path__
known = {it.name: it.name for it in pkgutil.iter_modules([place])}
known = {name: name for name in known if "class Model(" in pathlib.Path(place, name + ".py").read_text("utf-8")}
print(json.dumps(known | {name: it for name, it in MODEL_REMAPPING.items() if it in known}))
"""
"""Prints the ``model_type`` of config.json that mlx-lm knows, each with the name of the module that it stands for."""


@cache
def architectures() -> dict[str, str] | None:
    """The module for each ``model_type`` that loads here, encoders among them; None where MLX cannot be asked."""
    asked = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(asked, capture_output=True, check=False)  # noqa: S603
    try:
        known = msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, str])
    except (msgspec.DecodeError, IndexError):
        return None
    return known | dict.fromkeys(ENCODERS, "an encoder")


@click.command()
@click.argument("words", nargs=-1)
@json_option
def families(words: tuple[str, ...], *, as_json: bool) -> None:
    """List the families of models that load here, by the model_type of their config.json.

    WORDS name some of them. docs/families.md tells what of each is computed together.
    """
    known = architectures()
    if known is None:
        leave(Exit.NO_BACKEND, "mlx-lm cannot be asked; 'switchyard doctor' says why")
    wanted = {name: it for name, it in sorted(known.items()) if all(word.lower() in name for word in words)}
    if as_json:
        click.echo(msgspec.json.encode(wanted))
    elif wanted:
        rows = [(name, "" if module == name else f"as {module}") for name, module in wanted.items()]
        click.echo(table(("FAMILY", ""), rows))
    else:
        leave(Exit.REFUSED, f"no family that loads here is called {' '.join(words)}")
