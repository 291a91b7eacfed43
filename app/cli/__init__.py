"""The command line: ``switchyard`` and ``python -m app``.

One module for each command; a module imports nothing heavy before its command runs, so that ``--help`` is instant.
"""

from app.cli.root import switchyard


def main() -> None:
    """Run the command line and end the process with its exit code."""
    switchyard(prog_name="switchyard")
