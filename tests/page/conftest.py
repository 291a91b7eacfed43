"""A real browser on the page: Debian's chromium, or any Chrome with its driver, without a screen."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.page.browser import Page

CHROMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # as root, which CI is, Chromium has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)


@pytest.fixture(scope="package")
def chrome(tmp_path_factory) -> Iterator[Any]:
    """One browser for all tests; each test opens its page anew."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="needs selenium: ./docker-free-run.sh test installs it"
    )
    binary = next((path for name in CHROMES if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chrome')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # OpenBLAS is not for browsers
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver, env=plain))
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def page(chrome: Any, url: str) -> Iterator[Page]:
    """The page of the module's own service at ``url``; nothing may have been wrong with it when the test ends."""
    page = Page(chrome, url)
    yield page
    assert page.complaints() == []
    page.close()
