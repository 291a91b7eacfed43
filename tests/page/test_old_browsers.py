"""The page in browsers that are not the newest: Safari from 17.0 on, which is what macOS 14 began with."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import page as pages
from tests.page.browser import Page
from tests.support.live import live_saying

FOLDER = Path(pages.__file__).parent
NEWER = {
    "css": (
        r"light-dark\(",
        r"@starting-style",
        r"@scope\b",
        r"@view-transition",
        r"field-sizing",
        r"interpolate-size",
        r"anchor-name",
        r"text-wrap:\s*pretty",
        r"\b(?:mod|rem|round)\(.*,",
        r"\bcontrast-color\(",
        r":has-slotted",
    ),
    "js": (
        r"\b(?:Map|Object)\.groupBy\b",
        r"\bPromise\.(?:withResolvers|try)\b",
        r"\bAbortSignal\.any\b",
        r"\bRegExp\.escape\b",
        r"\bIterator\.(?:from|concat)\b",
        r"\bMath\.(?:sumPrecise|f16round)\b",
        r"\.checkVisibility\(",
        r"\brequestIdleCallback\b",
        r"\bReadableStream\.from\b",
        r"for await \(const \w+ of \w+\.body\b",
        r"\bsetHTML(?:Unsafe)?\(",
        r"\busing \w+ =",
        r"\(\?[ims]+(?:-[ims]+)?:",
    ),
}
"""What Safari 17.0 does not know, as it is written."""
GONE = """
for (const [owner, name] of [
  [Map, "groupBy"], [Object, "groupBy"], [Promise, "withResolvers"], [Promise, "try"], [AbortSignal, "any"],
  [RegExp, "escape"], [window, "Iterator"], [window, "requestIdleCallback"], [ReadableStream, "from"],
  [ReadableStream.prototype, Symbol.asyncIterator], [Element.prototype, "checkVisibility"],
  [Element.prototype, "setHTML"], [window, "trustedTypes"], [window, "scheduler"],
]) delete owner[name];
"""


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.css")) + sorted(FOLDER.rglob("*.js")), ids=lambda it: it.name)
def test_nothing_is_used_that_safari_learnt_later(path: Path) -> None:
    text = path.read_text()
    used = [pattern for pattern in NEWER[path.suffix[1:]] if re.search(pattern, text)]
    if path.parent.name == "vendor":  # which may ask for what is there
        used = [it for it in used if "requestIdleCallback" not in it]
    assert used == []


@pytest.fixture(scope="module")
def url(chrome: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with live_saying("Hello.", tmp_path_factory.mktemp("page"), default_model="tiny") as url:
        yield url


@pytest.fixture
def old(page: Page) -> Iterator[Page]:
    """The page in a browser from which the newer things were taken, and with them the policy that asks for one."""
    page.close()
    page.browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    with page.at_every_opening(GONE):
        yield page
    page.browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})


def test_a_question_is_answered_by_an_old_browser(old: Page) -> None:
    old.open("/")
    assert old.js("return [typeof Map.groupBy, typeof Iterator, typeof AbortSignal.any]") == ["undefined"] * 3
    old.says("[role=status]", "live")
    old.ask("Hello")
    old.answered()
    assert old.text(".said") == "Hello.\n"


def test_the_machine_and_the_reference_are_drawn_by_an_old_browser(old: Page) -> None:
    old.open("/#machine")
    old.says('[data-id="org/other"]', "on disk")
    old.open("/docs")
    assert "/v1/chat/completions" in old.says(".reference", "/v1/chat/completions")


LUMINANCE = """
const [element, part] = arguments;
const [r, g, b] = getComputedStyle(document.querySelector(element))[part].match(/[\\d.]+/g).map(Number);
return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
"""


@pytest.mark.parametrize("system", ["light", "dark"])
@pytest.mark.parametrize("theme", ["auto", "light", "dark"])
def test_text_stands_out_from_its_ground(page: Page, system: str, theme: str) -> None:
    page.browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": system}]}
    )
    try:
        page.one("#prompt")
        page.js("document.documentElement.dataset.theme = arguments[0]", theme)
        ground, text = (page.js(LUMINANCE, "body", it) for it in ("backgroundColor", "color"))
        dark = (system if theme == "auto" else theme) == "dark"
        assert (ground < 0.15, text > 0.85) == (dark, dark), (ground, text)
        assert abs(ground - text) > 0.7
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
