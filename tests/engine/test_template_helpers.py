"""The processes that render templates: bounded, watched, and none left behind."""

import os
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from jinja2 import TemplateError

from app.engine.mlx.text import template, template_helper
from app.engine.mlx.text.template import Helpers


@pytest.fixture
def helpers() -> Iterator[Helpers]:
    made = Helpers(seconds=5.0)
    yield made
    for helper in list(made._all):
        made._end(helper)


def left(pids: list[int]) -> list[Any]:
    """Those that still run."""
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_a_template_is_rendered_above_1024_open_descriptors(helpers: Helpers) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1400:
        pytest.skip("the system lets a process have too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1400), hard))
    opened = []
    try:
        opened += [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
        assert helpers.render("{{ x }}", {"x": 5}) == "5"
        (helper,) = helpers._all
        assert helper._process.stdout.fileno() > 1024
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("many", [1, 3])
def test_at_rest_one_of_them_stays(helpers: Helpers, many: int) -> None:
    for _ in range(many):  # as many as rendered at once
        helpers._idle.put(helpers._started())
    first, *rest = helpers.pids()
    assert len(rest) == many - 1
    helpers.thin()
    (kept,) = helpers.pids()
    assert left([first, *rest]) == [kept]
    assert helpers.render("{{ x }}", {"x": 5}) == "5"
    assert helpers.pids() == [kept]
    helpers._end(next(iter(helpers._all)))
    helpers.thin()
    assert helpers.pids() == []


@pytest.mark.parametrize("many", [2, 16])
def test_a_burst_waits_for_the_helper_that_is_there(
    helpers: Helpers, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """To start another takes longer than many a rendering; one that keeps it busy is not waited for."""
    monkeypatch.setattr(template, "START_WORTH", 30.0)
    helpers.start()
    (known,) = helpers.pids()
    with ThreadPoolExecutor(many) as threads:
        texts = list(threads.map(lambda n: helpers.render("{{ x }}", {"x": n}), range(many)))
    assert texts == [str(n) for n in range(many)]
    assert helpers.pids() == [known]
    monkeypatch.setattr(template, "START_WORTH", 0.01)
    slow = "{% for i in range(2000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}{{ x }}"
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda n: helpers.render(slow, {"x": n}), (1, 2))) == ["1", "2"]
    assert len(helpers.pids()) == 2


def test_one_that_fails_leaves_no_process(helpers: Helpers, monkeypatch: pytest.MonkeyPatch) -> None:
    helpers.render("{{ 1 }}", {})
    (pid,) = helpers.pids()
    monkeypatch.setattr(helpers, "_seconds", 0.3)
    with pytest.raises(TemplateError, match="longer than"):
        helpers.render("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", {})
    assert not left([pid])
    assert helpers.pids() == []
    monkeypatch.setattr("app.engine.mlx.text.template_helper.__file__", "/nowhere/at/all.py")
    with pytest.raises(TemplateError, match="does not start"):
        helpers.render("{{ 1 }}", {})
    assert helpers.pids() == []


def test_its_memory_is_watched_from_outside_where_the_system_bounds_none(
    helpers: Helpers, monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers.render("{{ 1 }}", {})
    (pid,) = helpers.pids()
    monkeypatch.setattr(template_helper, "MEMORY", 1 << 20)
    began = time.monotonic()
    with pytest.raises(TemplateError, match="ended the process"):
        helpers.render("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", {})
    assert time.monotonic() - began < 4.0
    assert not left([pid])
