"""How thoughts, tool calls and JSON look, on a service whose model thinks first and then calls a function."""

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from selenium.webdriver.common.keys import Keys

from app.engine.base import Sequence
from app.engine.text import Marks
from app.main import create_app
from app.settings import Settings
from tests.page.browser import Page
from tests.support.house import scripted_memory, scripted_registry
from tests.support.live import live
from tests.support.scripted import BOS, ByteTokenizer, ScriptedEngine, ScriptedLoader, says

THOUGHT = "I must look at <b>two</b> rivers."
ARGUMENTS = {"city": "Paris", "rivers": ["Seine", "<i>Bièvre</i>"]}
CALL = f"<tool_call>\n{json.dumps({'name': 'get_weather', 'arguments': ARGUMENTS})}\n</tool_call>"
SECOND = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("get_weather", "get_time")
]
ANSWERS = {
    "weather": f"<think>\n{THOUGHT}\n</think>\n\n{CALL}\n{SECOND}",
    "rivers": f"<think>\n{THOUGHT}\n</think>\n\nThe **Seine** it is.",
    "list": '[{"city":"Paris"},{"city":"Rome"}]',
    "broken": '{"city":"Par',
}
STEP = 0.01
"""Seconds a byte: slow enough to be watched."""


class SlowLoader(ScriptedLoader):
    async def load(self, path: Path, **given: Any) -> ScriptedEngine:
        engine = await super().load(path, **given)
        engine.step_seconds = STEP
        return engine


def script(sequence: Sequence, row: int) -> Iterable[int]:
    asked = bytes(token for token in sequence.prompt if token < BOS).decode()
    return says(max(ANSWERS.items(), key=lambda it: asked.rfind(it[0]))[1])(sequence, row)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("page")
    tokenizer = ByteTokenizer(
        template_takes_tools=True, call_format="json_tools", thinking=Marks("<think>", "</think>")
    )

    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        loader = SlowLoader(scripted_memory(), script=script, tokenizer=tokenizer)
        async with scripted_registry(loader, root) as registry:
            yield create_app(Settings(default_model="tiny"), registry=registry)

    with live(make) as url:
        yield url


def test_tool_calls_are_shown_each_with_its_arguments_laid_out(page: Page) -> None:
    page.one(".settings summary").click()
    page.one("textarea[placeholder*=function]").send_keys(json.dumps(TOOLS))
    page.ask("weather")
    assert "Asks for a tool." in page.answered()
    first, second = page.all(".call")
    assert [call.find_element("css selector", "strong").text for call in (first, second)] == ["get_weather", "get_time"]
    assert first.find_element("css selector", "pre").text == json.dumps(ARGUMENTS, indent=2, ensure_ascii=False)
    assert second.find_element("css selector", "pre").text == "{}"
    assert "tool_call" not in page.text(".said")
    assert page.js("return document.querySelectorAll('.call pre *').length") == 0


def test_what_is_no_list_of_tools_is_said_before_anything_is_sent(page: Page) -> None:
    page.one(".settings summary").click()
    page.one("textarea[placeholder*=function]").send_keys("[{")
    page.ask("weather")
    page.says(".turn .failure", "The list of tools is not valid JSON")
    page.answered()


def test_thoughts_are_open_while_they_come_and_folded_after(page: Page) -> None:
    page.ask("rivers")
    page.until(lambda: page.text(".thoughts[open] summary") == "Thinking…", "no thoughts are seen coming")
    page.answered()
    assert page.text(".thoughts summary") == "Thoughts"
    assert page.all(".thoughts .text") == []
    assert page.text(".thoughts .text") == THOUGHT
    assert page.one(".said").text == "The Seine it is."


def test_thoughts_are_unfolded_by_the_keyboard_and_stay_so(page: Page) -> None:
    page.ask("rivers")
    page.answered()
    for _ in range(8):
        page.browser.switch_to.active_element.send_keys(Keys.SHIFT, Keys.TAB)
        if page.js("return document.activeElement.matches('.thoughts summary')"):
            break
    page.browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.one(".thoughts .text").text == THOUGHT
    page.ask("list")
    page.until(lambda: len(page.all(".figures")) == 2, "the second question is not answered")
    assert page.one(".thoughts .text").text == THOUGHT
    page.one(".thoughts summary").send_keys(Keys.SPACE)
    page.until(lambda: not page.all(".thoughts .text"), "the thoughts do not fold again")


def test_json_is_laid_out_once_it_is_whole(page: Page) -> None:
    page.record(".said")
    page.ask("list")
    page.answered()
    assert page.one(".said pre").text == json.dumps([{"city": "Paris"}, {"city": "Rome"}], indent=2)
    raw = [text.strip() for text in page.recorded() if 0 < len(text.strip()) < len(ANSWERS["list"])]
    assert any(ANSWERS["list"].startswith(text) for text in raw), page.recorded()


def test_json_that_was_cut_is_shown_as_it_came(page: Page) -> None:
    page.ask("broken")
    page.answered()
    assert page.one(".said").text == ANSWERS["broken"]


def test_a_request_shows_who_asked_what_was_called_and_where_its_time_went(page: Page) -> None:
    body = {"model": "tiny", "max_tokens": 300, "messages": [{"role": "user", "content": "weather"}]}
    tools = [{"name": name, "input_schema": {"type": "object"}} for name in ("get_weather", "get_time")]
    asked = Request(  # noqa: S310
        f"{page.url}/v1/messages",
        json.dumps(body | {"tools": tools}).encode(),
        {"content-type": "application/json", "user-agent": "claude-cli/2.1.0 (external, <b>cli</b>)"},
    )
    urlopen(asked, timeout=60).read()  # noqa: S310  our own service
    page.open("/#machine")
    row = page.says(".requests tbody tr:nth-child(1)", "answered")
    assert "messages · claude-cli/2.1.0" in row
    assert [it.text for it in page.all(".requests tr:nth-child(1) .called code")] == ["get_weather", "get_time"]
    stages = page.one(".requests tbody tr:nth-child(1) .track")
    assert "decode" in stages.get_attribute("aria-label")
    widths = page.js(
        "return [...arguments[0].children].map((it) => it.getBoundingClientRect().width / arguments[0].clientWidth)",
        stages,
    )
    assert 0.5 < sum(widths) < 1.02
    assert "tiny" in page.text('[data-id="tiny"]')
    assert [it.text for it in page.all('[data-id="tiny"] .badge')][-1].endswith("context")


def test_a_request_that_runs_says_for_how_long(page: Page) -> None:
    page.ask("weather")
    page.one('a[href="#machine"]').click()
    page.says(".requests tbody tr:nth-child(1)", "so far")
    page.says(".requests tbody tr:nth-child(1)", "answered")
    assert "so far" not in page.text(".requests")


def test_a_conversation_is_exported_as_text_and_as_messages(page: Page) -> None:
    page.js(
        "window.saved = []; URL.createObjectURL = (it) => { it.text().then((text) => saved.push(text)); return '#' }"
    )
    page.ask("rivers")
    page.answered()
    page.button("Export").click()
    (text,) = page.until(lambda: page.js("return saved"), "nothing is saved")
    assert "## Question\n\nrivers" in text
    assert f"> {THOUGHT}" in text
    told = json.loads(text.partition("## As messages")[2].strip().strip("`"))
    assert told == [{"role": "user", "content": "rivers"}, {"role": "assistant", "content": "The **Seine** it is."}]
