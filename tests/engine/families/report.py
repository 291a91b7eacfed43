"""``docs/families.md``: what the check at load finds of each architecture, written from what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.engine.mlx.loaded import Loaded
from tests.engine.families.bench import kinds

PAGE = Path(__file__).parents[3] / "docs" / "families.md"
HEAD = """# Model families

What the check at load finds of each architecture that mlx-lm {version} knows, on small models of random weights, in
float32 on a CPU. It is found anew of every model that is loaded and kept by its configuration: no list decides. The
first load pays five passes of a few tokens for it (eight on a GPU), about twenty more where something is wrong, and the
last of them and longer ones as far as half a second or a twentieth of its time goes; the next load pays nothing.

- **prompts together**: prompts that come at the same time are computed as one padded group.
- **rows together**: answers decode in one batch; *but the shortest*: not those whose prompts have a few tokens only.
- **classes of length**: rows of different lengths decode in one pass, each class of like lengths in a KV cache of its
  own; where not, each class takes a pass of its own.
- Where the answer is no, prompts or answers take turns: each is right, and slower where many run.

`switchyard show MODEL` tells what was found of a model in memory (`together`), and so does `/admin/models`.

Each family says alone, in a padded group, six at once, behind a beginning that is known and joining others what
mlx-lm's own model says alone: `SWITCHYARD_FAMILIES=all ./docker-free-run.sh test tests/engine/families` tries all of
them. This page is written by `python -m tests.engine.families`.

| family | caches | prompts together | rows together | classes of length |
|---|---|---|---|---|
"""


def line(family: str, made: Loaded) -> str:
    """One family's row."""
    able = made.abilities
    rows = "yes" if able.batch and able.empty else "but the shortest" if able.batch else "no"
    group, classes = ("yes" if it else "no" for it in (able.group, able.classes))
    return f"| `{family}` | {kinds(made.model)} | {group} | {rows} | {classes} |"


def unable(family: str) -> str:
    """The row of one that needs another machine."""
    return f"| `{family}` | | Metal only | Metal only | Metal only |"


def written(rows: Sequence[str]) -> str:
    """The page."""
    from importlib.metadata import version  # noqa: PLC0415

    return HEAD.format(version=version("mlx-lm")) + "\n".join(rows) + "\n"
