"""``switchyard embed`` on a live service whose vectors are scripted."""

import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from app.cli.exits import Exit
from app.cli.root import switchyard
from app.cli.talk.embed import cosine
from app.main import create_app
from app.settings import Settings
from tests.support.encoders import add_modules, write_config
from tests.support.house import scripted_memory, scripted_registry
from tests.support.live import live
from tests.support.scripted import ScriptedLoader


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("embed")
    directory = root / "models" / "vec"
    directory.mkdir(parents=True)
    write_config(directory, {"model_type": "bert", "architectures": ["BertModel"]})
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    add_modules(directory, ("Pooling", {"pooling_mode": "mean"}))

    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        async with scripted_registry(ScriptedLoader(scripted_memory()), root) as registry:
            yield create_app(Settings(), registry=registry)

    with live(make) as url:
        yield url


def run(url: str, *arguments: str, code: Exit = Exit.DONE, stdin: str | None = None) -> str:
    done = CliRunner(env={"SWITCHYARD_URL": url}).invoke(switchyard, ("embed", *arguments), input=stdin)
    assert done.exit_code == code, done.output
    return done.output


def test_each_text_is_a_line(url: str) -> None:
    lines = run(url, "vec", "a", "bbb").splitlines()
    assert [msgspec.json.decode(line) for line in lines] == [[1.0, 0.5, 0.25, 0.125], [3.0, 0.5, 0.25, 0.125]]


def test_lines_of_a_pipe_are_texts(url: str) -> None:
    assert len(run(url, "vec", stdin="a\nbb\n\nccc\n").splitlines()) == 4


def test_how_alike_texts_are_is_a_table(url: str) -> None:
    head, *rows = run(url, "vec", "--compare", "a", "bbb", "c" * 60).splitlines()
    assert head.split() == ["1", "2", "3", "TEXT"]
    assert [row.split()[at + 1] for at, row in enumerate(rows)] == ["1.00"] * 3
    assert rows[2].endswith("…")


def test_a_whole_answer_is_json(url: str) -> None:
    told = msgspec.json.decode(run(url, "vec", "--json", "--as", "query", "a"))
    assert told["usage"]["total_tokens"] == 1


def test_failures_are_a_line(url: str) -> None:
    assert "is a chat model" in run(url, "tiny", "a", code=Exit.REFUSED)
    assert "there is no text" in run(url, "vec", code=Exit.USAGE, stdin="")


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=5))
def test_a_cosine_is_one_for_the_same_and_minus_one_for_the_opposite(vector: list[float]) -> None:
    zero = not any(vector)
    assert cosine(vector, vector) == pytest.approx(0.0 if zero else 1.0)
    assert cosine(vector, [-it for it in vector]) == pytest.approx(0.0 if zero else -1.0)
