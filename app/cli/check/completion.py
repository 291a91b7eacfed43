"""``switchyard completion``: what a shell needs to complete commands, flags and model names."""

import rich_click as click

FRAMES = {
    "bash": """\
if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "switchyard: bash $BASH_VERSION cannot complete commands; use zsh, or bash 4.4 or newer" >&2
else
{script}
fi
""",
    # an account whose ~/.zshrc is new has not asked for completion at all; -i passes over folders of other users
    "zsh": """\
#compdef switchyard
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit -i; }}
{script}
""",
    "fish": "{script}\n",
}
"""By shell, what stands around click's script."""


@click.command()
@click.argument("shell", type=click.Choice(tuple(FRAMES)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    bash: eval "$(switchyard completion bash)" in ~/.bashrc. zsh: the same in ~/.zshrc.
    fish: switchyard completion fish > ~/.config/fish/completions/switchyard.fish
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    kind = get_completion_class(shell)
    if kind is not None:
        made = kind(context.find_root().command, {}, "switchyard", "_SWITCHYARD_COMPLETE")
        script = (made.source_template % made.source_vars()).removeprefix("#compdef switchyard\n").strip()
        click.echo(FRAMES[shell].format(script=script), nl=False)
