"""The page in Safari, where there is one that may be driven: `sudo safaridriver --enable`, then ``SAFARI=1``."""

import os
import time

import pytest

from tests.support.live import live_saying

SECONDS = 20.0


@pytest.fixture(scope="module")
def safari():
    if not os.environ.get("SAFARI"):
        pytest.skip("needs a Mac with `sudo safaridriver --enable`, and SAFARI=1")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    browser = webdriver.Safari()
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture(scope="module")
def url(safari, tmp_path_factory):
    with live_saying("**Hello** there.", tmp_path_factory.mktemp("page"), default_model="tiny") as url:
        yield url


def says(browser, selector, words):
    deadline = time.monotonic() + SECONDS
    text = "return document.querySelector(arguments[0])?.textContent ?? ''"
    while words not in (told := browser.execute_script(text, selector)):
        assert time.monotonic() < deadline, f"{selector} says {told!r}, not {words!r}"
        time.sleep(0.05)


def test_a_question_is_answered_in_safari(safari, url):
    safari.get(url)
    says(safari, "[role=status]", "live")
    safari.find_element("css selector", "#prompt").send_keys("Hi\n")
    says(safari, ".said", "Hello there.")
    says(safari, ".figures", "tokens/s")
    assert safari.execute_script("return document.querySelector('.said strong').textContent") == "Hello"


def test_the_machine_and_the_reference_are_drawn_in_safari(safari, url):
    safari.get(f"{url}/#machine")
    says(safari, '[data-id="org/other"]', "on disk")
    safari.get(f"{url}/docs")
    says(safari, ".reference", "/v1/chat/completions")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_stand_out_in_safari(safari, url, theme):
    safari.get(url)
    says(safari, "[role=status]", "live")
    grounds = safari.execute_script(
        "document.documentElement.dataset.theme = arguments[0];"
        "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]",
        theme,
    )
    assert grounds[0] != grounds[1]
    assert "rgba(0, 0, 0, 0)" not in grounds
