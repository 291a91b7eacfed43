"""``switchyard completion``: what a shell needs to complete commands, flags and model names."""

import rich_click as click

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    bash: eval "$(switchyard completion bash)" in ~/.bashrc. zsh: the same in ~/.zshrc.
    fish: switchyard completion fish > ~/.config/fish/completions/switchyard.fish
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(context.find_root().command, {}, "switchyard", "_SWITCHYARD_COMPLETE").source())
