"""Every view in both themes, on a desk and on a phone: what can be read, reached and told apart."""

import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from litestar import Litestar
from selenium.webdriver.common.keys import Keys

from app.main import create_app
from app.settings import Settings
from tests.page.browser import Page
from tests.support.encoders import add_modules, write_config
from tests.support.house import scripted_memory, scripted_registry
from tests.support.live import live
from tests.support.scripted import ScriptedLoader, says

SAID = "# A title\n\nWith `code`, a [link](https://example.org)\n\n```\na block\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |"
FAULTS = """
const found = [];
const dot = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
const pen = dot.getContext("2d", { willReadFrequently: true });
const rgba = (color) => {
  pen.clearRect(0, 0, 1, 1);
  pen.fillStyle = color;
  pen.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const over = (top, under) => [0, 1, 2].map((at) => top[at] * top[3] + under[at] * (1 - top[3]));
const light = (color) => {
  const [r, g, b] = color.map((it) => (it / 255 <= 0.03928 ? it / 255 / 12.92 : ((it / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const chain = (element) => (element ? [...chain(element.parentElement), element] : []);
const tag = (element) => `<${element.localName} class="${element.className}">`;
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  const text = texts.currentNode.textContent.trim();
  if (!text || !element.checkVisibility() || element.closest(":disabled")) continue;
  const above = chain(element);
  const ground = above.reduce((under, it) => over(rgba(getComputedStyle(it).backgroundColor), under), [255, 255, 255]);
  const opacity = above.reduce((all, it) => all * getComputedStyle(it).opacity, 1);
  const ink = over([...over(rgba(getComputedStyle(element).color), ground), opacity], ground);
  const [dark, bright] = [light(ink), light(ground)].sort((a, b) => a - b);
  const contrast = (bright + 0.05) / (dark + 0.05);
  if (contrast < 4.5 && opacity > 0) found.push(`contrast ${contrast.toFixed(2)}: ${tag(element)} ${text}`);
}
const wide = document.documentElement.scrollWidth - innerWidth;
if (wide > 0) found.push(`${wide} pixels too wide`);
for (const element of document.querySelectorAll("body *")) {
  if (!element.checkVisibility() || element.closest(".scroll, pre, .skip, .choice")) continue;
  const { right, width } = element.getBoundingClientRect();
  if (width > 0 && right > innerWidth + 1) found.push(`cut off at the right: ${tag(element)}`);
  if (element.matches("button, a, input, select, textarea")) {
    const named = element.ariaLabel || element.textContent.trim() || element.labels?.length || element.title;
    if (!named) found.push(`without a name: ${tag(element)}`);
  }
}
return [...new Set(found)];
"""
"""Text of less contrast than WCAG's 4.5, what is wider than the window, controls that a screen reader cannot name."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("looks")
    vectors = root / "models" / "org" / "vec"
    vectors.mkdir(parents=True)
    write_config(vectors, {"model_type": "bert", "architectures": ["BertModel"]})
    (vectors / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    add_modules(vectors, ("Pooling", {"pooling_mode": "mean"}))

    @asynccontextmanager
    async def make() -> AsyncIterator[Litestar]:
        async with scripted_registry(ScriptedLoader(scripted_memory(), script=says(SAID)), root) as registry:
            yield create_app(Settings(default_model="tiny"), registry=registry)

    with live(make) as url:
        yield url


def playground(page: Page) -> None:
    page.ask("Hello")
    page.answered()
    page.one("input[list]").send_keys("org/none")
    page.ask("Hello")
    page.says(".turn .failure", "org/none")
    page.js("for (const it of document.querySelectorAll('details')) it.open = true")


def machine(page: Page) -> None:
    page.open("/#machine")
    page.button("Settings", '[data-id="tiny"]').click()
    page.one(".in-force")
    page.button("Compare", ".compare").click()
    page.one(".alike")
    page.js("document.querySelector('.hub input').value = 'some words'")
    page.one(".hub input").send_keys(" of the hub", Keys.ENTER)
    page.says(".found .failure", "offline")


def reference(page: Page) -> None:
    page.open("/docs")
    page.says(".reference", "/v1/chat/completions")
    page.js("for (const it of [...document.querySelectorAll('details')].slice(0, 12)) it.open = true")


def is_wide(page: Page, width: int) -> bool:
    return bool(page.js("return innerWidth") == width)


@pytest.mark.parametrize("view", [playground, machine, reference])
def test_everything_can_be_read_on_any_screen_in_both_themes(page: Page, view: Callable[[Page], None]) -> None:
    view(page)
    faults: dict[tuple[str, int], Any] = {}
    try:
        for theme in ("light", "dark"):
            page.js("document.documentElement.dataset.theme = arguments[0]", theme)
            for width, height in ((1280, 900), (360, 740)):
                screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
                page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
                page.until(partial(is_wide, page, width), "the window keeps its width")
                if found := page.js(FAULTS):
                    faults[theme, width] = found
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert faults == {}


def test_the_machine_is_walked_through_by_tab_and_every_stop_is_seen(page: Page) -> None:
    machine(page)
    page.js("document.activeElement.blur(); document.querySelector('main').focus()")
    stops = []
    for _ in range(40):
        page.browser.switch_to.active_element.send_keys(Keys.TAB)
        seen = page.js(
            """const it = document.activeElement;
            if (it === document.body) return null;
            const { top, bottom, width } = it.getBoundingClientRect();
            const ring = getComputedStyle(it).outlineStyle !== "none";
            return [it.textContent.trim() || it.ariaLabel, ring && width > 0 && bottom > 0 && top < innerHeight];"""
        )
        if seen is None:
            break
        stops.append(seen)
    assert {"Search", "Close", "Load", "Settings", "Compare", "Embedding model"} <= {
        name if name != "org/vec" else "Embedding model" for name, _ in stops
    }
    assert [name for name, shown in stops if not shown] == []
