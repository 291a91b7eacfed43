"""Ids of responses and of their items, which say where they belong.

A response is ``resp_<store><random>``, eight and 32 hexadecimal digits. Its items carry the same digits: the output
``msg_<digits>_<number>`` (or ``rs_``, ``fc_``, ``ctc_``), the input with an ``i`` before the number. So an item is
found by the id alone, and a response that is not here can be told from one that another store has made.
"""

import re
from secrets import token_hex
from typing import Literal

from msgspec import Struct

Kind = Literal["msg", "rs", "fc", "fco", "ctc", "ctco"]

RESPONSE = re.compile(r"resp_(?P<store>[0-9a-f]{8})[0-9a-f]{32}", re.ASCII)
ITEM = re.compile(r"[a-z]{2,4}_(?P<digits>[0-9a-f]{40})_(?P<side>i?)(?P<number>[0-9]{1,6})", re.ASCII)


class Place(Struct, frozen=True):
    """Where an item is kept: the ``number``-th of a response's output, or of its own input."""

    response: str
    number: int
    of_input: bool


def response_id(store: str) -> str:
    """A new id of a response that ``store`` keeps."""
    return f"resp_{store}{token_hex(16)}"


def store_id() -> str:
    """A new id of a store."""
    return token_hex(4)


def item_id(kind: Kind, response: str, number: int, *, of_input: bool = False) -> str:
    """The id of an item of ``response``."""
    return f"{kind}_{response.removeprefix('resp_')}_{'i' if of_input else ''}{number}"


def place_of(item: str) -> Place | None:
    """Where an item is; None for an id that was not made here."""
    found = ITEM.fullmatch(item)
    return None if found is None else Place(f"resp_{found['digits']}", int(found["number"]), found["side"] == "i")


def made_by(response: str) -> str | None:
    """The store that made a response's id; None for an id of somebody else's."""
    found = RESPONSE.fullmatch(response)
    return None if found is None else found["store"]
