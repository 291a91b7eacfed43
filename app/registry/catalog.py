"""From the name in a request to a model: alias, embedded, local directory, hub repo, ``base:adapter``.

Anything else does not exist. A name is only ever looked up, in tables and among the directories found below the
configured roots; no path and no URL is made of it. A hub name must look like one and match ``allow_models``, or stand
in ``models.toml`` or be the default model.
"""

import asyncio
import unicodedata
from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase

from msgspec.structs import replace

from app.engine.options import PROMPT_LOOKUP
from app.errors import ModelNotFound
from app.registry.hub.names import check_repo, check_revision, fold
from app.registry.patterns import Patterns, is_pattern
from app.registry.scan import ModelDirectory, scan
from app.registry.sources import Adapted, Embedded, HubRepo, LocalDirectory, Source
from app.settings import SMOLLM2, ModelEntry, Settings

_ALIASES = {"smollm2": SMOLLM2}
_RESCAN_SECONDS = 1.0


class Catalog:
    """Reads the disk in a thread, when made known names do not suffice, and no more than once a second.

    ``spelled`` says how a hub repo's directory writes its name: names of hub repos that differ in case alone are one.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        find: Callable[[Settings], dict[str, ModelDirectory]] | None = None,
        spelled: Callable[[str], Awaitable[str]] | None = None,
    ) -> None:
        self._spelled = _as_it_is if spelled is None else spelled
        self._find = _scan_roots if find is None else find
        self._directories: dict[str, ModelDirectory] = {}
        self._adapters: dict[str, ModelDirectory] = {}
        self._scanned_at: float | None = None
        self._scanning = asyncio.Lock()
        self.reload(settings)

    def reload(self, settings: Settings) -> None:
        """Take other entries of models; the roots stay."""
        models = {_composed(name): entry for name, entry in settings.models.items()}
        self._settings = settings = replace(settings, models=models)
        self._aliases = dict(_ALIASES)
        for name, entry in models.items():
            target = name if entry.adapter is None or ":" in name else f"{name}:{entry.adapter}"
            self._aliases.update(dict.fromkeys(entry.aliases, target))
            if target != name:
                self._aliases[name] = target
        self._aliases = {_composed(alias): target for alias, target in self._aliases.items()}
        patterns = {alias: target for alias, target in self._aliases.items() if is_pattern(alias)}
        self._patterns = Patterns(patterns)
        if patterns and settings.model_roots and not self._directories:
            self._directories = self._find(settings)  # a pattern is no alias of a directory, so they must be known
        self._written = {fold(name): name for name in (*settings.models, settings.default_model, SMOLLM2)}
        drafts = {entry.draft_model for entry in settings.models.values() if entry.draft_model} - {PROMPT_LOOKUP}
        named = (self.name(None), *settings.models, *map(self.name, drafts))
        self._named = {fold(name.partition("@")[0]) for name in named}

    def name(self, model: str | None) -> str:
        """The id that a name stands for: the default for None, what an alias says, or itself. Knows no disk.

        A hub name is written as the settings write it, whatever its case. Patterns are for names that are no model's.
        """
        asked = _composed(self._settings.default_model if model is None else model)
        named = asked if asked in self._aliases else self.written(asked)
        if named in self._aliases or model is None or self._is_model(named):
            return self._aliases.get(named, named)
        return self._patterns.find(named) or named

    def _is_model(self, name: str) -> bool:
        """Whether a name, or the base in it, is a model's own, as far as that is known without looking at the disk."""
        base = name.partition(":")[0].partition("@")[0]
        known = {self._settings.default_model, SMOLLM2, *self._settings.models, *self._aliases}
        return not known.isdisjoint({name, base}) or not self._directories.keys().isdisjoint({name, base})

    def written(self, name: str) -> str:
        """A name as the settings write it, if they do and if only its case is another."""
        repo, rest = _parted(name)
        if name in self._settings.models or "/" not in repo:
            return name
        return self._written.get(fold(repo), repo) + rest

    def aliases(self, model: str) -> tuple[str, ...]:
        """The other names of a model."""
        return tuple(sorted(alias for alias, name in self._aliases.items() if name == model))

    def entry(self, model: str | None) -> ModelEntry:
        """What the settings say of a model; nothing is checked. A revision shares its repo's entry."""
        name = self.name(model)
        base, colon, adapter = name.partition(":")
        entry = self._settings.models.get(name)
        if entry is None and name in self._directories:
            return ModelEntry()
        if entry is None:
            entry = self._settings.models.get(base) or self._settings.models.get(base.partition("@")[0], ModelEntry())
            if colon and entry.adapter != adapter:  # what is the base's own does not pass to its adapters
                entry = replace(entry, aliases=(), pin=False, preload=False, adapter=None)
        return entry

    async def find(self, model: str | None) -> Source:
        """The model of that name; raises :class:`app.errors.ModelNotFound` if there may be none."""
        name = self.name(model)
        known = self._known(name)
        if known is None and self._settings.model_roots:
            await self.rescan()
            known = self._known(name)
        if isinstance(known, Embedded | LocalDirectory):
            return known
        repo, rest = _parted(name)
        if "/" not in repo or repo in self._directories or repo == SMOLLM2:
            return known or self._hub(name)
        name = self.written(await self._spelled(check_repo(repo)) + rest)
        return self._known(name) or self._hub(name)

    def _adapted(self, name: str) -> Adapted | None:
        """``base:adapter``, the adapter being a directory below a root, or what the name's own entry says."""
        asked, _, adapter = name.partition(":")
        entry = self.entry(name)
        directory = self._adapters.get(adapter if entry.adapter is None else entry.adapter)
        if directory is None:
            return None
        base = self._aliases.get(asked, asked).partition(":")[0]
        source = self._known(base) or self._hub(base)
        if isinstance(source, Adapted):
            return None
        return Adapted(id=name, base=source, path=directory.path, entry=entry)

    async def sources(self) -> list[Source]:
        """Every model that needs no hub, and every one that the settings name, by id."""
        await self.rescan()
        names = {SMOLLM2, self.name(None), *self._directories, *self._settings.models}
        found: list[Source] = []
        for name in sorted(names):
            try:
                name = self._aliases.get(name, name)  # noqa: PLW2901  a model that is always adapted
                found.append(self._known(name) or self._hub(name))
            except ModelNotFound:
                continue  # configured, but neither here nor allowed
        return found

    def allows(self, repo: str) -> bool:
        """Whether a hub repo may be asked for: one that the settings name may, whatever the patterns say."""
        return fold(repo) in self._named or any(fnmatchcase(repo, pattern) for pattern in self._settings.allow_models)

    async def rescan(self) -> None:
        """Look for model directories again, unless that was done a moment ago; who comes meanwhile waits for it."""
        async with self._scanning:
            now = asyncio.get_running_loop().time()
            if self._scanned_at is None or now - self._scanned_at >= _RESCAN_SECONDS:
                self._directories = await asyncio.to_thread(self._find, self._settings)
                self._adapters = await asyncio.to_thread(_scan_roots, self._settings, "adapter_config.json")
                self._scanned_at = now

    def _known(self, name: str) -> Source | None:
        directory = self._directories.get(name)
        if directory is not None:
            return LocalDirectory(id=name, path=directory.path, created=directory.created, entry=self.entry(name))
        if ":" in name:
            return self._adapted(name)
        return Embedded(id=name, entry=self.entry(name)) if name == SMOLLM2 else None

    def _hub(self, name: str) -> HubRepo:
        repo, at, revision = name.partition("@")
        if "/" not in repo or not self.allows(check_repo(repo)):
            raise ModelNotFound(f"There is no model {name!r} here. GET /v1/models lists those that there are.")
        entry = self.entry(name)
        return HubRepo(id=name, repo=repo, revision=check_revision(revision) if at else entry.revision, entry=entry)


def _parted(name: str) -> tuple[str, str]:
    """The repo of a name, and its revision or adapter with the sign before it."""
    end = min((at for at in (name.find("@"), name.find(":")) if at >= 0), default=len(name))
    return name[:end], name[end:]


def _composed(name: str) -> str:
    """Letters with accents as single signs: keyboards write them so, some disks keep them apart."""
    return unicodedata.normalize("NFC", name)


async def _as_it_is(repo: str) -> str:
    return repo


def _scan_roots(settings: Settings, config: str = "config.json") -> dict[str, ModelDirectory]:
    found: dict[str, ModelDirectory] = {}
    for root in settings.model_roots:
        found = scan(root, config) | found
    return found
