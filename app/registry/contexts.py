"""How many tokens of a model's context there is memory for: no more is told of it than it can be given."""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from math import ceil
from pathlib import Path

from msgspec.structs import replace

from app.engine.facts import DeviceFacts, Law
from app.errors import SwitchyardError
from app.registry.abilities import Abilities
from app.registry.budget import Budget
from app.registry.footprint import ALLOWANCE_TOKENS, Footprint
from app.registry.memory_claims import attainable
from app.registry.shelf import Shelf
from app.registry.slot import Slot
from app.registry.sources import Adapted, Source

SOON = 0.05
"""Seconds that a listing waits to hear what the device is; until that is known lengths are the models' own."""
LONGEST = 1 << 30
"""Tokens; more than any context has."""
SPARE, STEP = 1.25, 384
"""What a row is given beyond its tokens: so many times as many, and so many more."""
OTHERWISE = re.compile(
    rb'"(layer_types|sliding_window\w*|full_attention_interval|attn_layer\w*|hybrid\w*|kv_lora_rank|ssm_\w*|mamba\w*'
    rb'|layers_block_type|block_types|attention_window\w*|linear_\w+|num_kv_shared_layers)"\s*:\s*(?!null|false|0\b)'
)
"""What config.json of a model says some of whose layers hold less than keys and values of every token."""


class Contexts:
    """``slots`` and ``budget`` are the dispatcher's. Files are read once, in threads, and again when they change."""

    def __init__(self, shelf: Shelf, slots: Mapping[str, Slot], budget: Callable[[], Budget]) -> None:
        self._shelf = shelf
        self._slots = slots
        self._budget = budget
        self._read: dict[tuple[Path, str], tuple[int, Footprint | None]] = {}

    async def fit(self, sources: Iterable[Source], places: Mapping[str, Path]) -> dict[str, int]:
        """The most tokens of each model that one request could have alone, where that is known.

        Of a resident model its own law says it, of others an estimate from their files in ``places``.
        """
        found, asked = dict[str, int](), list[tuple[Source, Path]]()
        for source in sources:
            slot = self._slots.get(source.id)
            if slot is not None and slot.engine is not None:
                found[source.id] = slot.engine.law.most(attainable(self._slots, slot, self._budget()), LONGEST)
            elif source.id in places:
                asked.append((source.base if isinstance(source, Adapted) else source, places[source.id]))
        device = await self._device() if asked else None
        if device is None:
            return found
        for source, path in asked:
            footprint = await self._footprint(source, path, device)
            if footprint is not None and footprint.allowance:
                pinned = sum(it.weights + it.beside for it in self._slots.values() if it.pinned)
                room = self._budget().limit - pinned - footprint.weights - footprint.beside
                law = Law(token=ceil(footprint.allowance / ALLOWANCE_TOKENS), spare=SPARE, step=STEP)
                found[source.id] = law.most(room, LONGEST)
        return found

    async def _device(self) -> DeviceFacts | None:
        with suppress(SwitchyardError, TimeoutError):
            return await asyncio.wait_for(self._shelf.device(), SOON)
        return None

    async def _footprint(self, source: Source, path: Path, device: DeviceFacts) -> Footprint | None:
        """None where it is not known, or says nothing of what a token takes."""
        try:
            config = path / "config.json"
            changed, key = config.stat().st_mtime_ns, (path, repr(source.entry))
            if (known := self._read.get(key)) is not None and known[0] == changed:
                return known[1]
            found: Footprint | None = None
            if not OTHERWISE.search(await asyncio.to_thread(config.read_bytes)):
                found = await self._shelf.measured(source, path, device)
        except OSError:
            return None
        except SwitchyardError:
            found = None
        self._read[key] = changed, found
        return found


def bounded(abilities: Abilities, most: int | None) -> Abilities:
    """What is told of a model of which ``most`` tokens fit; a model that does not fit at all is told as it is."""
    length = abilities.context_length
    if abilities.kind != "text" or length is None or most is None or not 0 < most < length:
        return abilities
    return replace(abilities, context_length=most, fitted=True)
