"""The command line: ``switchyard`` and ``python -m app``.

One module for each command; a module imports nothing heavy before its command runs, so that ``--help`` is instant.
"""

import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    from app.cli.root import switchyard  # noqa: PLC0415

    try:
        switchyard(prog_name="switchyard")
    except SystemExit as end:
        from app.cli.run.launched import final  # noqa: PLC0415

        sys.exit(final(end.code) if isinstance(end.code, int) else end.code)
