"""What the hub lists, understood whatever it says."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Unavailable
from app.registry.hub import Hub
from app.registry.hub.search import BYTES, listed
from tests.support.hub import LocalHub

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.fixed_dictionaries(
    {"id": st.sampled_from(["org/a", "b", "../c", "a--b/c", "org/d.git", "org/é"])},
    optional={
        "downloads": st.integers(-5, 2**40) | VALUES,
        "gated": st.sampled_from([False, True, "auto", "manual"]) | VALUES,
        "safetensors": st.fixed_dictionaries(
            {"parameters": st.dictionaries(st.sampled_from([*BYTES, "Q9"]), st.integers(-5, 2**50), max_size=3)}
        )
        | VALUES,
        "unknown": VALUES,
    },
)


@given(st.lists(ENTRIES, max_size=6), st.integers(1, 5))
def test_what_is_listed_is_a_model_that_can_be_asked_for_or_the_answer_is_nonsense(
    entries: list[dict[str, Any]], limit: int
) -> None:
    try:
        found = listed(json.dumps(entries).encode(), limit)
    except msgspec.DecodeError:
        return
    assert len(found) <= limit
    for it in found:
        assert it.repo in {"org/a", "b"}
        assert it.nbytes is None or it.nbytes > 0
        assert it.downloads >= 0


def test_packed_weights_are_counted_as_the_words_that_hold_them() -> None:
    told = [{"id": "org/a", "safetensors": {"parameters": {"U32": 1000, "BF16": 10}}, "gated": "manual"}]
    (found,) = listed(json.dumps(told).encode(), 3)
    assert (found.nbytes, found.gated) == (4020, True)


async def test_an_offline_hub_is_not_searched(tmp_path: Path) -> None:
    hub = Hub(cache_dir=tmp_path, offline=True)
    with pytest.raises(Unavailable, match="offline"):
        await hub.search("model", 5)
    await hub.close()


async def test_the_hub_is_asked_for_words_and_as_many_as_are_wanted(tmp_path: Path) -> None:
    with LocalHub() as served:
        for number in range(9):
            served.add(f"org/Model-{number}", {"config.json": b"{}"})
        hub = Hub(cache_dir=tmp_path, endpoint=served.url)
        assert [it.repo for it in await hub.search("model org", 4)] == [f"org/Model-{number}" for number in range(4)]
        assert await hub.search("none such", 4) == ()
        await hub.close()
