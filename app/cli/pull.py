"""``switchyard pull``."""

import rich_click as click


@click.command()
def pull() -> None:
    """Fetch a model."""
