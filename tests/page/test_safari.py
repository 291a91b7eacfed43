"""The page in Safari, where there is one that may be driven: `sudo safaridriver --enable`, then ``SAFARI=1``."""

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.live import live_saying

if TYPE_CHECKING:  # selenium need not be there
    from selenium.webdriver.remote.webdriver import WebDriver

SECONDS = 20.0


@pytest.fixture(scope="module")
def safari() -> Iterator["WebDriver"]:
    if not os.environ.get("SAFARI"):
        pytest.skip("needs a Mac with `sudo safaridriver --enable`, and SAFARI=1")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    browser = webdriver.Safari()
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture(scope="module")
def url(safari: "WebDriver", tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with live_saying("**Hello** there.", tmp_path_factory.mktemp("page"), default_model="tiny") as url:
        yield url


def says(browser: "WebDriver", selector: str, words: str) -> None:
    deadline = time.monotonic() + SECONDS
    text = "return document.querySelector(arguments[0])?.textContent ?? ''"
    while words not in (told := browser.execute_script(text, selector)):
        assert time.monotonic() < deadline, f"{selector} says {told!r}, not {words!r}"
        time.sleep(0.05)


def test_a_question_is_answered_in_safari(safari: "WebDriver", url: str) -> None:
    safari.get(url)
    says(safari, "[role=status]", "live")
    safari.find_element("css selector", "#prompt").send_keys("Hi\n")
    says(safari, ".said", "Hello there.")
    says(safari, ".figures", "tokens/s")
    assert safari.execute_script("return document.querySelector('.said strong').textContent") == "Hello"


def test_the_machine_and_the_reference_are_drawn_in_safari(safari: "WebDriver", url: str) -> None:
    safari.get(f"{url}/#machine")
    says(safari, '[data-id="org/other"]', "on disk")
    safari.get(f"{url}/docs")
    says(safari, ".reference", "/v1/chat/completions")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_stand_out_in_safari(safari: "WebDriver", url: str, theme: str) -> None:
    safari.get(url)
    says(safari, "[role=status]", "live")
    grounds = safari.execute_script(
        "document.documentElement.dataset.theme = arguments[0];"
        "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]",
        theme,
    )
    assert grounds[0] != grounds[1]
    assert "rgba(0, 0, 0, 0)" not in grounds
