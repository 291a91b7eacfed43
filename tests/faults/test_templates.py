"""Templates that loop, grow, or try to get out."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import TemplateError

from app.engine.mlx.text.template import Helpers
from app.engine.mlx.text.tokenizer import MLXTokenizer
from app.errors import InvalidRequest
from tests.support.tiny import make_tiny, tiny

MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def helpers() -> Iterator[Helpers]:
    made = Helpers(seconds=1.0)
    made.render("{{ 1 }}", {})
    yield made
    while not made._idle.empty():
        made._idle.get().end()


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set x = 9**(9**9) %}",
        "{{ 9**(9**9) }}",
        "{{ 'a' * 10**11 }}",
        "{{ '%10000000000d' % 1 }}",
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
        "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
        "{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__ }}",
        "{{ range.__globals__.x }}",
        "{{ raise_exception.__globals__['sys'].modules }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ raise_exception('not like this') }}",
        "{{ dict.mro() }}",
    ],
)
def test_it_is_refused_in_time(helpers: Helpers, source: str) -> None:
    began = time.perf_counter()
    with pytest.raises(TemplateError) as refusal:
        assert not helpers.render(source + "x", {"messages": MESSAGES})
    assert time.perf_counter() - began < 4
    assert "/" not in str(refusal.value) or "Traceback" not in str(refusal.value)


def test_one_that_took_too_long_is_not_waited_for_again(helpers: Helpers) -> None:
    source = "{% for a in range(99999) %}{% for b in range(99998) %}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateError, match="longer than"):
        helpers.render(source, {})
    began = time.perf_counter()
    with pytest.raises(TemplateError, match="a moment ago"):
        helpers.render(source, {})
    assert time.perf_counter() - began < 0.1
    assert helpers.render("{{ x|tojson }}", {"x": {"ä": "<&>"}}) == '{"ä": "<&>"}'


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_helper_can_open_nothing(helpers: Helpers) -> None:
    """Even out of the sandbox: what the process may do is looked at from outside."""
    helper = helpers._helper()
    helpers._idle.put(helper)
    text = Path(f"/proc/{helper._process.pid}/limits").read_text()
    limits = {line[:25].strip(): line[25:].split() for line in text.splitlines()}
    assert limits["Max open files"][:2] == ["3", "3"]
    assert limits["Max processes"][:2] == ["0", "0"]
    assert limits["Max file size"][:2] == ["0", "0"]


def test_a_model_with_such_a_template_refuses_chats_and_no_more(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m", seed=1)
    (path / "chat_template.jinja").write_text("{{ ''.__class__ }}{{ messages[0].__init__.__globals__ }}")
    tokenizer = MLXTokenizer.load(path, None)
    with pytest.raises(InvalidRequest) as refusal:
        tokenizer.render_chat(MESSAGES)
    assert refusal.value.code == "chat_template_error"
    assert tokenizer.encode("still fine")


def test_every_template_goes_to_a_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = MLXTokenizer.load(tiny(), None)
    monkeypatch.setattr(Helpers, "render", lambda _self, _template, variables: f"helped {variables['messages']}")
    assert tokenizer.render_chat(MESSAGES).startswith("helped")


def test_rendering_takes_no_time_to_speak_of(helpers: Helpers) -> None:
    source = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    began = time.perf_counter()
    for _ in range(50):
        assert helpers.render(source, {"messages": MESSAGES}) == "<user>Hi"
    assert (time.perf_counter() - began) / 50 < 0.02
