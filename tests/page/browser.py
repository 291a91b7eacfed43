"""The page as a person uses it: look, type, click, wait for what shows."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("selenium", reason="needs selenium: ./docker-free-run.sh test installs it")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

SECONDS = 12.0
ANSWER = 90.0
"""Seconds for a whole answer, a load and a slow machine included."""


class Page:
    """One opened page."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        self.url = url
        browser.get_log("browser")
        browser.get(url)

    def open(self, place: str) -> None:
        """Go on to another view, or another path."""
        self.browser.get(f"{self.url}{place}")

    def close(self) -> None:
        """Leave the page, and with it its stream of events."""
        self.browser.get("about:blank")

    def all(self, selector: str) -> list[Any]:
        return [it for it in self.browser.find_elements(By.CSS_SELECTOR, selector) if it.is_displayed()]

    def one(self, selector: str) -> Any:
        """The first that shows, once one does."""
        return self.until(lambda: (self.all(selector) or [None])[0], f"{selector} does not show")

    def button(self, label: str, inside: str = "body") -> Any:
        def found() -> Any:
            return next((it for it in self.all(f"{inside} button") if it.text == label and it.is_enabled()), None)

        return self.until(found, f"there is no button {label!r} to press")

    def text(self, selector: str) -> str:
        """What stands there now; nothing if nothing does."""
        return self.js("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def until(self, condition: Callable[[], Any], otherwise: str, seconds: float = SECONDS) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if value := condition():
                    return value
            except Exception as error:  # noqa: BLE001  an element that was just replaced
                otherwise = f"{otherwise} ({type(error).__name__})"
            time.sleep(0.02)
        raise AssertionError(f"{otherwise}:\n{self.text('body')[:2000]}")

    def says(self, selector: str, words: str) -> str:
        """Wait until ``words`` stand there."""
        self.until(lambda: words in self.text(selector), f"{selector} does not say {words!r}")
        return self.text(selector)

    def ask(self, prompt: str) -> None:
        """Type and press Enter."""
        self.one("#prompt").send_keys(prompt, Keys.ENTER)

    def answered(self) -> str:
        """The figures below the answer, once it has ended."""
        self.until(lambda: self.all(".turn:last-child .figures"), "the answer does not end", ANSWER)
        return self.text(".turn:last-child .figures span")

    def js(self, program: str, *values: Any) -> Any:
        return self.browser.execute_script(program, *values)

    @contextmanager
    def at_every_opening(self, program: str) -> Iterator[None]:
        """Run ``program`` in every page before the page's own scripts."""
        made = self.browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": program})
        try:
            yield
        finally:
            self.browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", made)

    def complaints(self) -> list[str]:
        """What the browser's console holds against the page: scripts that failed, the policy that was broken."""
        told = [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
        return [line for line in told if "Failed to load resource" not in line]

    def record(self, selector: str) -> None:
        """Keep every text that an element shows from now on; see :meth:`recorded`."""
        self.js(
            """window.recorded = [];
            new MutationObserver(() => {
              const text = document.querySelector(arguments[0])?.textContent;
              if (text !== undefined && text !== window.recorded.at(-1)) window.recorded.push(text);
            }).observe(document.body, {subtree: true, childList: true, characterData: true});""".replace(
                "arguments[0]", json.dumps(selector)
            )
        )

    def recorded(self) -> list[str]:
        return self.js("return window.recorded")
