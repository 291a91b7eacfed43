"""A model's settings in force and the books' tiers of prefixes, as the page tells them."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from app.engine.work import OnDisk
from app.main import create_app
from app.settings import ModelEntry, Settings
from tests.page.browser import Page
from tests.support.house import scripted_memory, scripted_registry
from tests.support.live import live
from tests.support.scripted import ScriptedEngine, ScriptedLoader, says

TEMPERATURE = ["Temperature", "0.2", "models.toml"]


class KeepingLoader(ScriptedLoader):
    """Loads engines that keep prefixes on disk."""

    async def load(self, path: Path, **given: Any) -> ScriptedEngine:
        engine = await super().load(path, **given)
        engine.on_disk = OnDisk(nbytes=74_800_000)
        return engine


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("settings")

    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        async with scripted_registry(KeepingLoader(scripted_memory(), script=says("Hello.")), root) as registry:
            (root / "models" / "tiny" / "generation_config.json").write_text(json.dumps({"top_k": 20}))
            registry.reload({"tiny": ModelEntry(temperature=0.2, aliases=("little",))})
            yield create_app(Settings(default_model="tiny", offline=True, keep_alive=90.0), registry=registry)

    with live(make) as url:
        yield url


def rows(page: Page, inside: str) -> list[list[str]]:
    """The table's lines as they show, once there are some."""
    found = page.until(lambda: page.all(f"{inside} .in-force tbody tr"), f"no settings show in {inside}")
    return [[cell.text for cell in row.find_elements("css selector", "th, td")] for row in found]


def test_a_models_settings_are_shown_with_where_they_are_written(page: Page) -> None:
    page.open("/#machine")
    button = page.button("Settings", '[data-id="tiny"]')
    assert button.get_attribute("aria-expanded") == "false"
    button.send_keys(Keys.ENTER)
    told = rows(page, '[data-id="tiny"]')
    assert TEMPERATURE in told
    assert ["Top k", "20", "generation_config.json"] in told
    assert ["Top p", "off", "default"] in told
    assert ["Max tokens", "all that the context holds", "default"] in told
    assert ["Stays when unused", "90 s", "service settings"] in told
    assert button.get_attribute("aria-expanded") == "true"
    button.send_keys(Keys.ENTER)
    page.until(lambda: not page.all(".in-force"), "the settings stay")


def test_the_form_says_what_holds_where_it_is_left_empty_and_what_the_request_says(page: Page) -> None:
    def left() -> str:
        return page.one("input[type=number]").get_attribute("placeholder")

    page.until(lambda: left() == "0.2", "the form does not say the temperature in force")
    page.one("aside summary:not(.fold > summary)")
    next(it for it in page.all(".settings summary") if it.text == "In force").send_keys(Keys.ENTER)
    assert TEMPERATURE in rows(page, ".settings")
    page.one("input[type=number]").send_keys("0.9")
    page.until(
        lambda: rows(page, ".settings")[0] == ["Temperature", "0.9", "this request"], "the request's is not told"
    )
    page.one("fieldset label:last-of-type").click()
    page.until(lambda: ["Max tokens", "16", "default"] in rows(page, ".settings"), "completions' limit is not told")
    page.one("input[list]").send_keys("no-such-model")
    page.until(lambda: not page.all(".in-force"), "another model's settings stay")
    assert left() == "default"


def test_prefixes_on_disk_are_told_beside_the_budget(page: Page) -> None:
    page.ask("Hello")
    page.answered()
    page.open("/#machine")
    line = page.says(".legend", "Prefixes on disk, beside the budget")
    assert "74.8 MB" in line
    page.says('[data-id="tiny"]', "in memory")
    assert page.js("return document.querySelectorAll('.bar .disk').length") == 0


def test_offline_nothing_of_the_hub_is_offered(page: Page) -> None:
    page.open("/#machine")
    page.says(".card", "budget")
    page.says("#main", "Offline: the hub is neither searched nor pulled from.")
    assert page.all(".hub") == []
