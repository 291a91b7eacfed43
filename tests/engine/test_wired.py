"""How much memory macOS may be kept from paging out: nothing unless somebody asks, never what the system needs."""

import resource
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import psutil
import pytest

from app.engine.client.shares import wired_share
from app.engine.facts import Limits
from app.engine.mlx import memory

GB = 10**9


@pytest.mark.parametrize(
    ("total", "wanted", "share"),
    [(16, 0, 0), (16, 100, 8), (32, 100, 20.8), (32, 10, 10), (8, 100, 0), (4, 1, 0), (128, 100, 83.2)],
)
def test_the_larger_of_eight_gigabytes_and_a_third_stays_free(
    monkeypatch: pytest.MonkeyPatch, total: int, wanted: int, share: float
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=total * GB))
    assert wired_share(wanted * GB) == pytest.approx(share * GB)


def test_nothing_is_wired_by_default_and_what_is_told_is(monkeypatch: pytest.MonkeyPatch) -> None:
    wired: list[Any] = []
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "set_wired_limit", wired.append, raising=False)
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    memory.limit(Limits(memory=1 << 30, pool=1 << 20, prefixes=0))
    memory.limit(Limits(memory=1 << 30, pool=1 << 20, prefixes=0, wired=5))
    assert wired == [0, 5]
