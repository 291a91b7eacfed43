"""Whatever happens is drawn, at whatever moment it happens: while nobody listens yet, and while another view shows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.page.browser import Page
from tests.support.live import live_saying

HELD = """
{
  const held = [];
  const timer = window.setTimeout;
  const parse = JSON.parse;
  let release = () => {
    release = () => {};
    window.setTimeout = timer;
    window.requestAnimationFrame = frame;
    JSON.parse = parse;
    timer(() => held.forEach((call) => call()));
  };
  const frame = window.requestAnimationFrame;
  window.setTimeout = (call) => held.push(call);
  window.requestAnimationFrame = (call) => held.push(() => call(performance.now()));
  JSON.parse = (text) => {
    const value = parse(text);
    if (value?.models) { window.early = held.length; timer(() => release()); }
    return value;
  };
}
"""
"""Holds back all timers and frames, and with them every effect, until the first snapshot has been taken."""

DRAWN = """
const [moment, source, finish] = arguments;
(async () => {
  const { html, render } = await import("/page/js/html.js");
  const { Store, useEvent, useStore } = await import("/page/js/store.js");
  const store = new Store({ word: "old" });
  const target = new EventTarget();
  let word = "old";
  const Word = {
    store: () => html`<b>${useStore(store).word}</b>`,
    event: () => html`<b>${useEvent(target, "change", () => word)}</b>`,
  }[source];
  const change = () => {
    word = "new";
    store.set({ word });
    target.dispatchEvent(new Event("change"));
  };
  const place = document.createElement("div");
  const frame = () => new Promise(requestAnimationFrame);
  const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));
  if (moment === "before it is drawn") change();
  render(html`<${Word} />`, place);
  if (moment === "at once") change();
  if (moment === "in the same task") await Promise.resolve().then(change);
  if (moment === "in the next frame") { await frame(); change(); }
  if (moment === "later") { await pause(120); change(); }
  if (moment === "between two drawings") {
    await pause(120);
    render(null, place);
    change();
    render(html`<${Word} />`, place);
  }
  await pause(250);
  finish(place.textContent);
})().catch((error) => finish(String(error)));
"""
MOMENTS = ("before it is drawn", "at once", "in the same task", "in the next frame", "later", "between two drawings")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with live_saying("Hello.", tmp_path_factory.mktemp("page"), default_model="tiny") as url:
        yield url


@pytest.mark.parametrize("view", ["/", "/#machine"])
def test_a_snapshot_that_comes_before_the_effects_is_shown(page: Page, view: str) -> None:
    page.close()
    with page.at_every_opening(HELD):
        page.open(view)
        page.says("[role=status]", "live")
    assert page.js("return window.early") > 0, "nothing was waiting, so nothing was early"
    assert page.one("a.gauge")


@pytest.mark.parametrize("source", ["store", "event"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_change_is_drawn_whenever_it_comes(page: Page, moment: str, source: str) -> None:
    assert page.browser.execute_async_script(DRAWN, moment, source) == "new"


def test_a_page_that_is_hidden_and_shown_at_once_is_live_again(page: Page) -> None:
    page.says("[role=status]", "live")
    page.js(
        """let hidden = true;
        Object.defineProperty(document, "hidden", { get: () => hidden });
        document.dispatchEvent(new Event("visibilitychange"));
        hidden = false;
        document.dispatchEvent(new Event("visibilitychange"));"""
    )
    page.js("window.quiet = new Promise((resolve) => setTimeout(resolve, 300))")
    page.browser.execute_async_script("window.quiet.then(arguments[0])")
    page.says("[role=status]", "live")


def test_a_page_that_is_hidden_has_no_stream_until_it_is_shown(page: Page) -> None:
    page.close()
    program = "window.unseen = true; Object.defineProperty(document, 'hidden', { get: () => window.unseen });"
    with page.at_every_opening(program):
        page.open("/")
        page.says("[role=status]", "not connected")
        asked = "return performance.getEntriesByType('resource').filter((it) => it.name.endsWith('events')).length"
        assert page.js(asked) == 0
        page.js("window.unseen = false; document.dispatchEvent(new Event('visibilitychange'))")
        page.says("[role=status]", "live")


def test_what_failed_while_another_view_was_shown_is_told_when_one_comes_back(page: Page) -> None:
    page.open("/#machine")
    page.js(
        """const fetched = window.fetch;
        window.fetch = async (...given) => {
          if (given[0].includes("/pull")) await new Promise((resolve) => { window.go = resolve; });
          return fetched(...given);
        };"""
    )
    page.one('[aria-label="Model of the hub"]').send_keys("org/none")
    page.button("Pull").click()
    page.until(lambda: page.js("return Boolean(window.go)"), "nothing is asked")
    page.one('a[href="#playground"]').click()
    page.one("#prompt")
    page.js("window.go()")
    page.one('a[href="#machine"]').click()
    page.says(".card .failure", "offline")


def test_a_model_that_is_being_worked_on_stays_so_when_one_comes_back(page: Page) -> None:
    page.open("/#machine")
    page.js(
        """const fetched = window.fetch;
        window.fetch = async (...given) => {
          if (given[0].endsWith("/load")) await new Promise((resolve) => { window.go = resolve; });
          return fetched(...given);
        };"""
    )
    row = '[data-id="org/other"]'
    page.button("Load", row).click()
    page.one('a[href="#playground"]').click()
    page.one("#prompt")
    page.one('a[href="#machine"]').click()
    page.one(f"{row} .actions button:disabled")
    page.js("window.go()")
    page.button("Unload", row).click()


def test_a_key_that_was_replaced_is_not_told_to_be_wrong(chrome: Any, tmp_path: Path) -> None:
    with live_saying("Hello.", tmp_path, api_keys=("sk-right",)) as url:
        page = Page(chrome, url)
        page.one("dialog input")
        page.js("sessionStorage.setItem('switchyard.key', 'sk-wrong')")
        page.js(
            """const fetched = window.fetch;
            window.fetch = async (...given) => {
              const answer = await fetched(...given);
              if (answer.status === 401) await new Promise((resolve) => { window.go = resolve; });
              return answer;
            };"""
        )
        page.js("import('/page/js/net.js').then(({ ask }) => ask('GET', 'v1/models').catch(() => {}))")
        page.until(lambda: page.js("return Boolean(window.go)"), "nothing was refused")
        page.one("dialog input").send_keys("sk-right")
        page.button("Use this key", "dialog").click()
        page.says("[role=status]", "live")
        page.js("window.go()")
        page.js("window.quiet = new Promise((resolve) => setTimeout(resolve, 100))")
        page.browser.execute_async_script("window.quiet.then(arguments[0])")
        assert page.all("dialog") == []
        assert page.complaints() == []
        page.js("sessionStorage.clear()")
        page.close()
