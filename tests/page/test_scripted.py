"""What the page makes of answers, on a service whose model says what it is told."""

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from app.engine.base import Sequence
from app.main import create_app
from app.settings import Settings
from tests.page.browser import Page
from tests.support.house import scripted_memory, scripted_registry
from tests.support.live import live
from tests.support.scripted import ScriptedLoader, says

HOSTILE = (
    "**bold** <script>window.owned = 1</script><img src=x onerror='window.owned = 1'> "
    "[click](javascript:window.owned=1) [site](https://example.org) <style>body{display:none}</style>\n\n"
    "```python\nprint('<b>')\n```\n"
)
JSON = '{"city":"Paris","rivers":["Seine"]}'
FOUND = [
    {"id": "org/<b>new</b>", "nbytes": 1.5e9, "downloads": 9, "gated": False, "fits": True, "on_disk": False},
    {"id": "org/huge", "nbytes": 9e11, "downloads": 5, "gated": True, "fits": False, "on_disk": False},
    {"id": "org/here", "nbytes": None, "downloads": 1, "gated": False, "fits": None, "on_disk": True},
]
ANSWERS = {"hostile": HOSTILE, "json": JSON}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("page")

    def script(sequence: Sequence, row: int) -> Iterable[int]:
        asked = bytes(token for token in sequence.prompt if token < 256).decode()
        known = [answer for word, answer in ANSWERS.items() if word in asked]
        return says(known[-1] if known else "Hello there.")(sequence, row)

    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        async with scripted_registry(ScriptedLoader(scripted_memory(), script=script), root) as registry:
            yield create_app(Settings(default_model="tiny"), registry=registry)

    with live(make) as url:
        yield url


def test_what_a_model_writes_is_shown_and_never_run(page: Page) -> None:
    page.ask("hostile")
    page.answered()
    said = page.one(".said")
    assert said.find_element("css selector", "strong").text == "bold"
    assert page.one(".said pre code").text == "print('<b>')"
    assert "<script>" in said.text
    assert page.js("return document.querySelectorAll('.said :is(script, img, style, [onerror])').length") == 0
    links = page.js("return [...document.querySelectorAll('.said a')].map(a => [a.getAttribute('href'), a.rel])")
    assert links == [[None, "noopener noreferrer nofollow"], ["https://example.org", "noopener noreferrer nofollow"]]
    assert page.js("return window.owned") is None


@pytest.mark.parametrize(
    "attack",
    [
        "document.body.insertAdjacentHTML('beforeend', '<i>markup</i>')",
        "document.body.setAttribute('onclick', 'window.owned = 1')",
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.owned = 1'}))",
    ],
)
def test_the_policy_lets_no_text_become_code(page: Page, attack: str) -> None:
    assert page.js(f"try {{ {attack} }} catch (error) {{ return error.name }}") == "TypeError"
    assert page.js("return window.owned") is None
    page.browser.get_log("browser")  # the browser says so too


def test_json_is_laid_out(page: Page) -> None:
    page.ask("json")
    page.answered()
    assert page.one(".said pre").text.splitlines()[:2] == ["{", '  "city": "Paris",']


def test_raw_text_goes_on_from_the_prompt(page: Page) -> None:
    page.one("fieldset label:last-of-type").click()
    page.ask("Once upon")
    page.answered()
    assert (page.text(".raw .given"), page.text(".raw .new")) == ("Once upon", "Hello there.")


def test_a_refusal_is_shown_as_a_sentence(page: Page) -> None:
    page.one("input[list]").send_keys("org/none")
    page.ask("Hello")
    failure = page.says(".turn .failure", "org/none")
    assert failure.endswith(".")
    assert "{" not in failure
    page.answered()


def test_what_is_no_number_is_refused_by_the_service_and_said(page: Page) -> None:
    page.js("document.querySelectorAll('input[type=number]')[1].closest('label').click()")
    page.all("input[type=number]")[0].send_keys("7")
    page.ask("Hello")
    page.says(".turn .failure", "temperature")


def test_the_request_is_copied_as_programs_that_run(page: Page) -> None:
    page.browser.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    page.all("input[type=number]")[1].send_keys("4")
    page.one("#prompt").send_keys("It's")
    page.js("window.copied = []; navigator.clipboard.writeText = async (text) => void window.copied.push(text)")
    page.button("Copy as curl").click()
    page.button("Copy as Python").click()
    curl, python = page.until(lambda: len(page.js("return window.copied")) == 2 and page.js("return window.copied"), "")
    compile(python, "copied", "exec")
    assert f'base_url="{page.url}/v1"' in python
    assert "max_tokens=4," in python
    assert '"role": "user", "content": "It\'s"' in python
    assert curl.startswith(f"curl -N {page.url}/v1/chat/completions")
    assert "It'\\''s" in curl


def test_the_machine_is_shown_live_and_obeys(page: Page) -> None:
    page.open("/#machine")
    row = '[data-id="org/other"]'
    page.says(row, "on disk")
    page.button("Load", row).click()
    page.says(row, "in memory")
    assert "org/other" in page.text(".legend")
    page.button("Pin", row).click()
    page.says(row, "pinned")
    page.button("Unpin", row).click()
    page.button("Unload", row).click()
    page.says(row, "on disk")
    assert "org/other" not in page.text(".legend")


def test_the_hub_is_searched_by_words_and_pulled_from_by_name(page: Page) -> None:
    page.open("/#machine")
    field = page.one(".hub input")
    field.send_keys("org/some-model")
    page.button("Pull", ".hub")
    field.clear()
    field.send_keys("some words", Keys.ENTER)
    page.says(".found .failure", "offline")
    page.button("Close", ".found").click()
    page.js(
        """window.fetch = (fetch => async (where, what) => String(where).includes("admin/search")
        ? new Response(JSON.stringify({data: arguments[0]})) : fetch(where, what))(window.fetch)""".replace(
            "arguments[0]", json.dumps(FOUND)
        )
    )
    page.button("Search", ".hub").click()
    rows = page.until(lambda: page.all("[data-found]"), "nothing is found")
    assert [row.text.split("\n") for row in rows] == [
        ["org/<b>new</b>", "1.5 GB", "fits", "Pull"],
        ["org/huge", "900 GB", "too large", "gated", "Pull"],
        ["org/here", "size not known", "on disk"],
    ]
    assert [row.is_enabled() for row in page.all("[data-found] button")] == [True, False]
    page.all("[data-found] button")[0].click()
    page.says(".failure", "cannot be the name")
    assert page.all("[data-found]") == []


def test_requests_are_listed_with_their_outcome(page: Page) -> None:
    page.ask("Hello")
    page.answered()
    page.one("input[list]").send_keys("org/none")
    page.ask("Hello")
    page.says(".turn .failure", "org/none")
    page.one('a[href="#machine"]').click()
    page.says("tbody tr:nth-child(1)", "refused 404")
    page.says("tbody tr:nth-child(2)", "answered")


def test_the_keyboard_suffices(page: Page) -> None:
    page.one("#prompt")
    page.says("[role=status]", "live")
    assert page.js("return document.activeElement.id") == "prompt"
    page.browser.switch_to.active_element.send_keys("one", Keys.SHIFT, Keys.ENTER, Keys.NULL, "two", Keys.ENTER)
    page.answered()
    assert page.text(".user .text") == "one\ntwo"
    assert page.text("#prompt") == ""


def test_the_reference_is_drawn_from_the_document(page: Page) -> None:
    page.open("/docs")
    page.says(".reference", "/v1/chat/completions")
    assert "/admin/models/{model}/pull" in page.text(".reference")


def test_a_service_with_keys_asks_for_one_and_keeps_it_in_the_tab(chrome: Any, tmp_path: Path) -> None:
    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        async with scripted_registry(ScriptedLoader(scripted_memory(), script=says("Hello.")), tmp_path) as registry:
            yield create_app(Settings(api_keys=("sk-right",)), registry=registry)

    with live(make) as url:
        page = Page(chrome, url)
        page.one("dialog input").send_keys("sk-wrong")
        page.button("Use this key", "dialog").click()
        page.says("dialog", "does not know this key")
        page.one("dialog input").clear()
        page.one("dialog input").send_keys("sk-right")
        page.button("Use this key", "dialog").click()
        page.says("[role=status]", "live")
        page.one("input[list]").send_keys("tiny")
        page.ask("Hello")
        page.answered()
        assert page.text(".said") == "Hello.\n"
        kept = page.js("return [Object.values({...sessionStorage}), Object.values({...localStorage}), document.cookie]")
        assert kept == [["sk-right"], ["auto"], ""]
        assert page.complaints() == []
        page.js("sessionStorage.clear()")
        page.close()
