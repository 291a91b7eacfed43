"""``switchyard key``."""

import json
import re
import secrets
from pathlib import Path

import rich_click as click

from app.cli.exits import Exit, leave
from app.settings.keys import SCOPES, digest_of, read_file
from app.settings.problem import SettingsProblem

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@click.command()
@click.argument("name")
@click.option("--file", "path", required=True, metavar="FILE", help="The key file (setting key_file); made if missing.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="What it may do. Default: infer")
@click.option("--model", "models", multiple=True, metavar="PATTERN", help="Models it may use. Default: all")
@click.option("--rate", type=click.IntRange(min=1), metavar="N", help="Requests a minute it may send. Default: any")
@click.option("--concurrent", type=click.IntRange(min=1), metavar="N", help="Requests it may run at once. Default: any")
def key(
    *,
    name: str,
    path: str,
    scopes: tuple[str, ...],
    models: tuple[str, ...],
    rate: int | None,
    concurrent: int | None,
) -> None:
    """Make an API key, show it once, and add its hash to a key file.

    A running service reads the file again when it is sent SIGHUP.
    """
    if not _NAME.fullmatch(name):
        leave(Exit.USAGE, "a key's name is made of letters, digits, - and _")
    file = Path(path)
    try:
        known = read_file(file) if file.exists() else {}
    except SettingsProblem as problem:
        leave(Exit.USAGE, str(problem))
    if name in known:
        leave(Exit.USAGE, f"{path} has a key {name} already; remove it first or choose another name")
    made = new_key()
    text = entry(name, made, scopes=scopes or ("infer",), models=models or ("*",), rate=rate, concurrent=concurrent)
    try:
        if not file.exists():
            file.touch(mode=0o600)
        with file.open("a", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as failure:
        leave(Exit.USAGE, f"{path} cannot be written ({failure.strerror}); name another with --file")
    click.echo(made)


def new_key() -> str:
    """256 bits of chance, marked as ours so that scanners for leaked keys can find it."""
    return f"sk-switchyard-{secrets.token_urlsafe(32)}"


def entry(
    name: str, made: str, *, scopes: tuple[str, ...], models: tuple[str, ...], rate: int | None, concurrent: int | None
) -> str:
    """The table of a key in a key file."""
    lines = [
        f"[keys.{name}]",
        f'hash = "sha256:{digest_of(made).hex()}"',
        f"scopes = {json.dumps(scopes)}",
        f"models = {json.dumps(models)}",
    ]
    if rate is not None:
        lines.append(f"requests_per_minute = {rate}")
    if concurrent is not None:
        lines.append(f"concurrent_requests = {concurrent}")
    return "\n".join([*lines, "", ""])
