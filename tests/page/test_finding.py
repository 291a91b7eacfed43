"""Where the browser of these tests is looked for."""

from pathlib import Path

import pytest

from tests.page import conftest as looking


def program(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with nothing on its PATH, and no word of a browser."""
    for name in ("CHROME", "CHROMEDRIVER", "CHROMEWEBDRIVER", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


@pytest.mark.parametrize("name", looking.BUNDLES)
@pytest.mark.parametrize("folder", ["Applications", "Users/a b/Applications"])
def test_chrome_is_found_among_the_applications_of_a_mac(bare: Path, name: str, folder: str) -> None:
    found = program(bare / folder / f"{name}.app/Contents/MacOS/{name}")
    assert looking.find_chrome((bare / "Applications", bare / "Users/a b/Applications")) == found


@pytest.mark.parametrize("name", looking.CHROMES)
def test_what_is_on_the_path_is_found_first(bare: Path, name: str) -> None:
    program(bare / "Applications/Chromium.app/Contents/MacOS/Chromium")
    found = program(bare / "bin" / name)
    assert looking.find_chrome((bare / "Applications",)) == found


def test_a_browser_that_is_named_is_taken(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(bare / "bin/chromium")
    monkeypatch.setenv("CHROME", program(bare / "elsewhere/my chrome"))
    assert looking.find_chrome(()) == str(bare / "elsewhere/my chrome")


@pytest.mark.parametrize(
    ("variable", "value"), [("CHROMEWEBDRIVER", "folder"), ("CHROMEDRIVER", "folder/chromedriver")]
)
def test_the_driver_is_found_where_a_variable_names_it(
    bare: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    driver = program(bare / "folder/chromedriver")
    assert looking.find_driver() is None
    monkeypatch.setenv(variable, str(bare / value))
    assert looking.find_driver() == driver


def test_without_a_browser_tests_skip_here_and_fail_in_a_workflow(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pytest.skip.Exception):
        looking.give_up("needs a browser")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needs a browser"):
        looking.give_up("needs a browser")
