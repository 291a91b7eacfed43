"""``switchyard embed``: vectors of texts, or how alike the texts are."""

import math
import sys

import msgspec
import rich_click as click

from app.cli.client import errors_reported
from app.cli.exits import Exit, leave
from app.cli.reach import json_option, model_argument, reach, reaching
from app.cli.words import table
from app.schemas.embeddings import EmbeddingList

SHOWN = 40
"""Characters of a text in a table."""


@click.command()
@model_argument
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--as", "kind", type=click.Choice(["query", "document"]), help="The model's own prompt for it.")
@click.option("--dimensions", type=click.IntRange(1), metavar="N", help="So many numbers of each vector.")
@click.option("--compare", is_flag=True, help="Print how alike the texts are: the cosines of their vectors.")
@reaching
@json_option
def embed(
    model: str,
    texts: tuple[str, ...],
    *,
    kind: str | None,
    dimensions: int | None,
    compare: bool,
    url: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Make vectors of texts, a line for each. Without TEXT each line of standard input is one."""
    lines = list(texts) or sys.stdin.read().splitlines()
    if not lines:
        leave(Exit.USAGE, "there is no text; give some, or lines on standard input")
    options = {"input_type": kind, "dimensions": dimensions}
    body = {"model": model, "input": lines} | {name: it for name, it in options.items() if it is not None}
    with errors_reported():
        answer = reach(url, config).client.ask("POST", "/v1/embeddings", EmbeddingList, body)
    if as_json:
        click.echo(msgspec.json.encode(answer))
        return
    vectors = [list(map(float, row.embedding)) for row in answer.data]
    if not compare:
        for vector in vectors:
            click.echo(msgspec.json.encode(vector))
        return
    head = ("", *(str(at) for at in range(1, len(lines) + 1)), "TEXT")
    rows = [
        (str(at), *(f"{cosine(one, other):.2f}" for other in vectors), _short(text))
        for at, (one, text) in enumerate(zip(vectors, lines, strict=True), 1)
    ]
    click.echo(table(head, rows))


def cosine(one: list[float], other: list[float]) -> float:
    """1: the same direction. A vector without a length has none."""
    return sum((a * b for a, b in zip(_direction(one), _direction(other), strict=True)), 0.0)


def _direction(vector: list[float]) -> list[float]:
    """The vector in the length 1, or as it is if it has none. Divided twice: the square of a tiny number is 0."""
    top = max(map(abs, vector))
    length = math.hypot(*(it / top for it in vector)) if top else 1.0
    return [it / top / length for it in vector] if top else vector


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
