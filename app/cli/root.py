"""The command group, and what every command shares."""

import rich_click as click

from app import __version__
from app.cli.key import key
from app.cli.pull import pull
from app.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="switchyard")
def switchyard() -> None:
    """Serve any MLX language model on Hugging Face to OpenAI clients, the model named per request."""


switchyard.add_command(serve)
switchyard.add_command(pull)
switchyard.add_command(key)
