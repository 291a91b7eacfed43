"""The imports that take most of a second, made before a model is asked for.

``python -m app.engine.host.imports PARENT`` makes them once, and compiles the engine's modules, so that their bytecode
is kept: see :mod:`app.engine.client.bytecode`.
"""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engine.host.confine import end_with
from app.engine.mlx.cores import giving_way

if TYPE_CHECKING:
    from app.engine.host.models import Models
    from app.engine.mlx.load.share_adapter import OwnParts


ABSENT = ("torch", "trio")
"""Packages that are not installed, as far as this process knows: transformers would import PyTorch, for five seconds,
and the hub's client trio. What is done here does without.
"""


def import_models(*, urgent: bool) -> type[Models]:
    """Import what a load needs; raises ImportError. Unless it is ``urgent``, what streams here goes first."""
    with nullcontext() if urgent else giving_way(), _limits_kept():
        gc.disable()  # next to nothing of what is made now can be collected
        try:
            for name in ABSENT:
                sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # how Python notes that there is none
            transformers = import_module("transformers")
            with _models_listed_once(transformers):
                transformers.AutoTokenizer  # noqa: B018  resolved when it is first named
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
def _models_listed_once(transformers: Any) -> Iterator[None]:
    """Give transformers the names in its models' files that it has read before.

    It reads all 1,700 of them as it is imported and again for its first class, a quarter of a second each time: what it
    remembers of 128 folders has been pushed out by the other 400, but for the one that holds them all.
    """
    utils: Any = import_module("transformers.utils.import_utils")
    read = getattr(utils, "create_import_structure_from_path", None)
    models = Path(transformers.__file__).parent / "models"
    if read is None:  # in other versions
        yield
        return
    utils.create_import_structure_from_path = lambda path: read(models if path == str(models / "__init__.py") else path)
    try:
        yield
    finally:
        utils.create_import_structure_from_path = read


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


if __name__ == "__main__":
    import compileall

    end_with(int(sys.argv[1]))
    with giving_way():
        compileall.compile_dir(Path(__file__).parents[1], quiet=2)
        import_models(urgent=False)
