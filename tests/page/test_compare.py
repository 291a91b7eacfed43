"""Texts compared on the page, on a service with an embedding model whose vectors are scripted."""

import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.main import create_app
from app.settings import Settings
from tests.page.browser import Page
from tests.support.encoders import add_modules, write_config
from tests.support.house import scripted_memory, scripted_registry
from tests.support.live import live
from tests.support.scripted import ScriptedLoader

TEXTS = "a\nbbbb\n<b>c</b>"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("compare")
    directory = root / "models" / "org" / "vec"
    directory.mkdir(parents=True)
    write_config(directory, {"model_type": "bert", "architectures": ["BertModel"]})
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    add_modules(directory, ("Pooling", {"pooling_mode": "mean"}))

    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        async with scripted_registry(ScriptedLoader(scripted_memory()), root) as registry:
            yield create_app(Settings(default_model="tiny"), registry=registry)

    with live(make) as url:
        yield url


def compare(page: Page, texts: str) -> None:
    area = page.one(".compare textarea")
    area.clear()
    area.send_keys(texts)
    page.button("Compare", ".compare").click()


def test_texts_are_compared_in_a_table(page: Page) -> None:
    page.open("#machine")
    compare(page, TEXTS)
    page.until(lambda: len(page.all(".compare .alike")) == 9, "the table does not show")
    cells = [cell.text for cell in page.all(".compare .alike")]
    assert [cells[0], cells[4], cells[8]] == ["1.00", "1.00", "1.00"]
    assert cells[1] == cells[3] == "0.93"
    assert "<b>c</b>" in page.text(".compare tbody")
    assert page.js("return document.querySelector('.compare tbody b')") is None
    assert [it.text for it in page.all(".compare option")] == ["org/vec"]


def test_a_failure_is_told(page: Page) -> None:
    page.open("#machine")
    compare(page, "refused")
    page.says(".compare .failure", "input is refused")


def test_models_for_vectors_are_not_offered_for_chats(page: Page) -> None:
    offered = page.js("return [...document.querySelectorAll('#models option')].map((it) => it.value)")
    assert "tiny" in offered
    assert "org/vec" not in offered
