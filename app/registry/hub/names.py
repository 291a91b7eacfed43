"""Names that may be a repo's or a revision's; anything else never reaches a path or a URL."""

import re
import unicodedata

from app.errors import ModelNotFound

DEFAULT_REVISION = "main"
COMMIT = re.compile(r"[0-9a-f]{40}")
BLOB = re.compile(r"[0-9A-Za-z_-]{1,128}")
_WORD = r"[0-9A-Za-z_](?:[0-9A-Za-z_.-]{0,94}[0-9A-Za-z_])?"
_REPO = re.compile(rf"(?:{_WORD}/)?{_WORD}")
_REVISION = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.+/-]{0,254}")


def fold(name: str) -> str:
    """What a file system that folds case and composes letters takes for the same name, and so does the hub."""
    return unicodedata.normalize("NFC", name).casefold()


def check_repo(repo: str) -> str:
    """Return a repo id, ``name`` or ``owner/name`` by the hub's rules; raises :class:`app.errors.ModelNotFound`."""
    if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or repo.endswith(".git"):
        raise ModelNotFound(f"{repo!r} cannot be the name of a model on the hub: it must look like owner/name.")
    return repo


def check_revision(revision: str | None) -> str:
    """Return a revision, ``main`` for None; raises :class:`app.errors.ModelNotFound`."""
    if revision is None:
        return DEFAULT_REVISION
    if not _REVISION.fullmatch(revision) or any(part in {"", ".", ".."} for part in revision.split("/")):
        raise ModelNotFound(f"{revision!r} cannot be a revision: name a branch, a tag or a commit.")
    return revision
