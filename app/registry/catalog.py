"""From the name in a request to a model: alias, embedded, local directory, hub repo. Anything else does not exist.

A name is only ever looked up, in tables and among the directories found below the configured roots; no path and no
URL is made of it. A hub name must look like one and match ``allow_models``, or stand in ``models.toml`` or be the
default model.
"""

import asyncio
from collections.abc import Callable
from fnmatch import fnmatchcase

from app.errors import ModelNotFound
from app.registry.hub.names import check_repo, check_revision
from app.registry.scan import ModelDirectory, scan
from app.registry.sources import Embedded, HubRepo, LocalDirectory, Source
from app.settings import SMOLLM2, ModelEntry, Settings

_ALIASES = {"smollm2": SMOLLM2}
_RESCAN_SECONDS = 1.0


class Catalog:
    """Reads the disk in a thread, when made known names do not suffice, and no more than once a second."""

    def __init__(
        self, settings: Settings, *, find: Callable[[Settings], dict[str, ModelDirectory]] | None = None
    ) -> None:
        self._find = _scan_roots if find is None else find
        self._directories: dict[str, ModelDirectory] = {}
        self._scanned_at: float | None = None
        self._scanning = asyncio.Lock()
        self.reload(settings)

    def reload(self, settings: Settings) -> None:
        """Take other entries of models; the roots stay."""
        self._settings = settings
        self._aliases = dict(_ALIASES)
        for name, entry in settings.models.items():
            self._aliases.update(dict.fromkeys(entry.aliases, name))
        self._named = {name.partition("@")[0] for name in (self.name(None), *settings.models)}

    def name(self, model: str | None) -> str:
        """The id that a name stands for: the default for None, what an alias says, or itself. Knows no disk."""
        asked = self._settings.default_model if model is None else model
        return self._aliases.get(asked, asked)

    def aliases(self, model: str) -> tuple[str, ...]:
        """The other names of a model."""
        return tuple(sorted(alias for alias, name in self._aliases.items() if name == model))

    def entry(self, model: str | None) -> ModelEntry:
        """What the settings say of a model; nothing is checked. A revision shares its repo's entry."""
        name = self.name(model)
        entry = self._settings.models.get(name)
        return self._settings.models.get(name.partition("@")[0], ModelEntry()) if entry is None else entry

    async def find(self, model: str | None) -> Source:
        """The model of that name; raises :class:`app.errors.ModelNotFound` if there may be none."""
        name = self.name(model)
        known = self._known(name)
        if known is None and self._settings.model_roots:
            await self.rescan()
            known = self._known(name)
        return self._hub(name) if known is None else known

    async def sources(self) -> list[Source]:
        """Every model that needs no hub, and every one that the settings name, by id."""
        await self.rescan()
        names = {SMOLLM2, self.name(None), *self._directories, *self._settings.models}
        found: list[Source] = []
        for name in sorted(names):
            try:
                found.append(self._known(name) or self._hub(name))
            except ModelNotFound:
                continue  # configured, but neither here nor allowed
        return found

    def allows(self, repo: str) -> bool:
        """Whether a hub repo may be asked for: one that the settings name may, whatever the patterns say."""
        return repo in self._named or any(fnmatchcase(repo, pattern) for pattern in self._settings.allow_models)

    async def rescan(self) -> None:
        """Look for model directories again, unless that was done a moment ago; who comes meanwhile waits for it."""
        async with self._scanning:
            now = asyncio.get_running_loop().time()
            if self._scanned_at is None or now - self._scanned_at >= _RESCAN_SECONDS:
                self._directories = await asyncio.to_thread(self._find, self._settings)
                self._scanned_at = now

    def _known(self, name: str) -> Source | None:
        directory = self._directories.get(name)
        if directory is not None:
            return LocalDirectory(id=name, path=directory.path, created=directory.created, entry=self.entry(name))
        return Embedded(id=name, entry=self.entry(name)) if name == SMOLLM2 else None

    def _hub(self, name: str) -> HubRepo:
        repo, at, revision = name.partition("@")
        if "/" not in repo or not self.allows(check_repo(repo)):
            raise ModelNotFound(f"There is no model {name!r} here. GET /v1/models lists those that there are.")
        entry = self.entry(name)
        return HubRepo(id=name, repo=repo, revision=check_revision(revision) if at else entry.revision, entry=entry)


def _scan_roots(settings: Settings) -> dict[str, ModelDirectory]:
    found: dict[str, ModelDirectory] = {}
    for root in settings.model_roots:
        found = scan(root) | found
    return found
