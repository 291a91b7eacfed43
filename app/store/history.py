"""What kept responses hold, item by item."""

from typing import Any

import msgspec
from msgspec import Struct

from app.errors import ResponseNotFound
from app.store.ids import place_of
from app.store.responses import Kept, ResponseStore

Item = dict[str, Any]
"""An item as it was sent or answered."""


class _Output(Struct):
    output: list[Item]


def inputs(kept: Kept) -> list[Item]:
    """The response's own input."""
    return msgspec.json.decode(kept.input, type=list[Item])


def outputs(kept: Kept) -> list[Item]:
    """The response's output."""
    return msgspec.json.decode(kept.body, type=_Output).output


def items_of(kept: Kept) -> list[Item]:
    """What the response adds to its conversation."""
    return [*inputs(kept), *outputs(kept)]


async def referred(store: ResponseStore, owner: bytes, item: str) -> Item:
    """The item of that id. Raises :class:`ResponseNotFound`."""
    place = place_of(item)
    if place is not None:
        kept = await store.get(owner, place.response)
        items = inputs(kept) if place.of_input else outputs(kept)
        if place.number < len(items):
            return items[place.number]
    raise ResponseNotFound(
        f"There is no item '{item[:128]}': items are kept with their response, unless it was made with store: false. "
        "Send the item itself."
    )
