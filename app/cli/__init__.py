"""The command line: ``switchyard`` and ``python -m app``.

One module for each command; a module imports nothing heavy before its command runs, so that ``--help`` is instant.
"""

import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    if sys.argv[1:2] == ["serve"]:
        from app.cli.native import prefer_openblas  # noqa: PLC0415

        prefer_openblas()  # it may begin anew, so that nothing else is imported twice
    from app.cli.root import switchyard  # noqa: PLC0415

    try:
        switchyard(prog_name="switchyard")
    except SystemExit as end:
        from app.cli.launched import final  # noqa: PLC0415

        sys.exit(final(end.code) if isinstance(end.code, int) else end.code)
