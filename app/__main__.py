"""``python -m app``: the same as ``switchyard``."""

from app.cli import main

main()
