"""The imports that take a second, made before a model is asked for."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING

from app.engine.mlx.cores import giving_way

if TYPE_CHECKING:
    from app.engine.host.models import Models
    from app.engine.mlx.load.share_adapter import OwnParts


def import_models(*, urgent: bool) -> type[Models]:
    """Import what a load needs; raises ImportError. Unless it is ``urgent``, what streams here goes first.

    transformers would import PyTorch where that is installed, for five seconds; tokenizers do without.
    """
    with nullcontext() if urgent else giving_way(), _limits_kept():
        gc.disable()  # next to nothing of what is made now can be collected
        try:
            sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # not installed, as far as this process knows
            import_module("transformers").AutoTokenizer  # noqa: B018  resolved when it is first named
            made: type[Models] = import_module("app.engine.host.models").Models
        finally:
            gc.enable()
    return made


def import_parts() -> type[OwnParts]:
    """Import what a rank needs that is not rank 0; raises ImportError."""
    with _limits_kept():
        made: type[OwnParts] = import_module("app.engine.mlx.load.share_adapter").OwnParts
    return made


@contextmanager
def _limits_kept() -> Iterator[None]:
    """mlx-lm sets the limit of open files to numbers of its own while it is imported; here it stays as it was.

    Theirs fail where less is allowed and take away where more is. A failed import is not kept.
    """
    real, resource.setrlimit = resource.setrlimit, _ignored
    try:
        yield
    except Exception:
        raise
    except BaseException as failure:  # some libraries end the program
        raise ImportError(repr(failure)) from failure
    finally:
        resource.setrlimit = real


def _ignored(_resource: int, _limits: tuple[int, int]) -> None:
    pass
