"""A real browser on the page: Debian's chromium, or any Chrome with its driver, without a screen.

Where the tests are the last word (``CI`` is set, as workflows do), a browser that is missing is a failure.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.page.browser import Page

CHROMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BUNDLES = ("Google Chrome", "Chromium", "Google Chrome for Testing", "Google Chrome Canary")
"""Applications of macOS, whose programs are on no PATH."""
APPLICATIONS = (Path("/Applications"), Path.home() / "Applications")
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
HANGS = 60
"""Seconds after which a browser that has not done what it was told never will."""


def find_chrome(applications: tuple[Path, ...] = APPLICATIONS) -> str | None:
    """The program of the first browser that is there: ``CHROME`` says which, then PATH, then macOS's applications."""
    named = [os.environ["CHROME"]] if "CHROME" in os.environ else []
    on_path = [path for name in (*named, *CHROMES) if (path := shutil.which(name))]
    bundled = [folder / f"{name}.app/Contents/MacOS/{name}" for folder in applications for name in BUNDLES]
    return next(iter([*on_path, *(str(path) for path in bundled if path.is_file())]), None)


def find_driver() -> str | None:
    """The driver: ``CHROMEDRIVER`` (the program, or the folder that GitHub's machines name so), then PATH."""
    named = Path(os.environ.get("CHROMEDRIVER") or os.environ.get("CHROMEWEBDRIVER") or os.devnull)
    return shutil.which(str(named / "chromedriver" if named.is_dir() else named)) or shutil.which("chromedriver")


def give_up(reason: str) -> NoReturn:
    """Skip with a reason, or fail with it where a browser has to be."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; on this machine (CI is set) the page is tested or the tests fail")
    pytest.skip(reason)


@pytest.fixture(scope="package")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for all tests; each test opens its page anew."""
    try:
        from selenium import webdriver  # noqa: PLC0415  a tool of the tests alone
    except ImportError:
        give_up("needs selenium: ./docker-free-run.sh test installs it")
    binary, driver = find_chrome(), find_driver()
    if binary is None or driver is None:
        give_up(
            "needs Chrome or Chromium and its chromedriver (Debian: apt-get install chromium chromium-driver; "
            "macOS: brew install --cask google-chrome chromedriver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chrome')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # OpenBLAS is not for browsers
    service = webdriver.ChromeService(driver, env=plain)
    browser = webdriver.Chrome(options=options, service=service, keep_alive=False)
    browser.command_executor.client_config.timeout = HANGS  # by itself it waits for ever
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
