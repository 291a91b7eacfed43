"""The exit codes, one for each way a command can end; ``docs/cli.md`` lists them."""

import sys
from enum import IntEnum
from typing import NoReturn, Self


class Exit(IntEnum):
    """Why a command ended. The ``meaning`` is what the documentation says of it."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        """A code together with its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DONE = 0, "Done; the service was told to stop and has stopped."
    FAILED = 1, "An unexpected failure; the lines above it say more."
    USAGE = 2, "A flag, a variable or a file of settings is wrong."
    PORT_TAKEN = 3, "The address cannot be listened on: the port is in use, or not allowed."
    NO_BACKEND = 4, "No MLX backend is installed."
    NOT_STARTED = 5, "The service could not start."
    NOT_FETCHED = 6, "The model could not be fetched."
    NO_SERVER = 8, "No service answers at the address."
    REFUSED = 9, "The service refused or failed what was asked; the line above says why."
    NO_CLIENT = 10, "The program to launch is not installed, or cannot be run."
    INTERRUPTED = 130, "Interrupted before the work was done."


def leave(code: Exit, message: str) -> NoReturn:
    """End the process with one line on standard error."""
    sys.stderr.write(f"switchyard: {message}\n")
    sys.exit(code)
