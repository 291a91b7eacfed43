"""The page on the service as people start it: a real model, a real hub client, a hub of our own."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.page.browser import Page
from tests.support.hub import Faults, LocalHub
from tests.support.process import service
from tests.support.tiny import make_tiny

REPO = "org/pulled"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub() as hub:
        hub.add(REPO, make_tiny(tmp_path_factory.mktemp("repo") / "pulled", seed=3))
        yield hub


@pytest.fixture(scope="module")
def url(chrome: Any, hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    with service(HF_HOME=str(home), HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0") as running:
        yield running.url


def test_a_streamed_answer_appears_word_by_word(page: Page) -> None:
    page.until(lambda: page.all("input[type=number]")[0].get_property("value") == "0", "it draws from all words")
    page.record(".said")
    page.ask("What is the capital of France?")
    figures = page.answered()
    shown = [text for text in page.recorded() if text.strip()]
    assert "Paris" in shown[-1]
    assert len(shown) >= 4, shown
    assert all(later.startswith(earlier.rstrip()) for earlier, later in itertools.pairwise(shown))
    assert "tokens/s" in figures
    assert "first after" in figures


def test_stop_ends_the_answer_here_and_in_the_service(page: Page) -> None:
    page.ask("Write a very long story about a river, a mountain and a city, with many details.")
    page.until(lambda: len(page.text(".said")) > 5, "nothing is said")
    page.button("Stop").click()
    assert "Stopped." in page.answered()
    said = page.text(".said")
    page.open("/#machine")
    page.says(".requests tbody tr:nth-child(1)", "client left")
    page.says('[data-state="resident"]', "idle for")
    assert said


def test_a_pull_shows_its_progress_and_the_model_answers(page: Page, hub: LocalHub) -> None:
    hub.faults["model.safetensors"] = Faults(bytes_per_second=150_000)
    page.open("/#machine")
    row = f'[data-id="{REPO}"]'
    page.one('[aria-label="Model of the hub"]').send_keys(REPO)
    page.record(f"{row} .transfer")
    page.button("Pull").click()
    page.says(row, "on disk")
    moments = [text for text in page.recorded() if " of " in text]
    assert len(set(moments)) >= 3, moments
    page.open("/#playground")
    page.one("input[list]").send_keys(REPO)
    page.all("input[type=number]")[1].send_keys("5")
    page.ask("Hi")
    page.answered()
    page.open("/#machine")
    page.says(row, "in memory")
    page.button("Unload", row).click()
    page.button("Remove", row).click()
    page.button("Really remove", row).click()
    page.until(lambda: not page.all(row), "the model is still there")


def test_a_repo_that_is_not_there_is_said_in_a_sentence(page: Page) -> None:
    page.open("/#machine")
    page.one('[aria-label="Model of the hub"]').send_keys("org/none")
    page.button("Pull").click()
    assert page.says(".card .failure", "org/none")
