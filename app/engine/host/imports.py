"""The imports that take a second, made before a model is asked for."""

from __future__ import annotations

import resource
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING

from app.engine.mlx.cores import giving_way

if TYPE_CHECKING:
    from app.engine.host.models import Models


def import_models(*, urgent: bool) -> type[Models]:
    """Import what a load needs; raises ImportError. Unless it is ``urgent``, what streams here goes first.

    mlx-lm sets the limit of open files to numbers of its own while it is imported, which fails where less is allowed
    and takes away where more is; here the limit stays as it was. A failed import is not kept.
    """
    with nullcontext() if urgent else giving_way():
        real, resource.setrlimit = resource.setrlimit, _ignored
        try:
            import_module("transformers").AutoTokenizer  # noqa: B018  resolved when it is first named
            made: type[Models] = import_module("app.engine.host.models").Models
        except Exception:
            raise
        except BaseException as failure:  # some libraries end the program
            raise ImportError(repr(failure)) from failure
        finally:
            resource.setrlimit = real
    return made


def _ignored(_resource: int, _limits: tuple[int, int]) -> None:
    pass
