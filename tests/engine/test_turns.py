"""Conversations of any shape, folded to what templates of six kinds take."""

from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.mlx.text import template_helper
from app.engine.mlx.text.turns import Turns, folded, turns_of
from app.errors import InvalidRequest

PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ (m.tool_calls or '')|string }}\n{% endfor %}"
FIRST = "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('late') }}{% endif %}"
LOSES = FIRST.replace("{{ raise_exception('late') }}", "{% continue %}")
HOISTS = (
    "<system>{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}\n"
    "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{{ (m.tool_calls or '')|string }}\n"
    "{% endfor %}"
)
ALTERNATES = (
    "{% set ns = namespace(i=0) %}{% for m in messages %}COUNTED"
    "{% if (m.role == 'user') != (ns.i % 2 == 0) %}{{ raise_exception('must alternate') }}{% endif %}"
    "{% set ns.i = ns.i + 1 %}{% endif %}<{{ m.role }}>{{ m.content }}{{ (m.tool_calls or '')|string }}\n{% endfor %}"
)
REST = PLAIN.removeprefix("{% for m in messages %}")
TEMPLATES = {
    "anywhere": (PLAIN, Turns()),
    "first": (FIRST + REST, Turns("first")),
    "loses": (LOSES + REST, Turns("first")),
    "hoists": (HOISTS, Turns("first")),
    "gemma": (
        ALTERNATES.replace("COUNTED", "{% if true %}"),
        Turns("none", repeated=False),
    ),
    "mistral": (
        ALTERNATES.replace("COUNTED", "{% if m.role not in ['system', 'tool'] and not m.tool_calls %}").replace(
            "<{{ m.role }}>",
            "{% if m.role == 'system' and not loop.first %}{{ raise_exception('late') }}{% endif %}<{{ m.role }}>",
        ),
        Turns("first", repeated=False, user_after_tool=False),
    ),
}


@cache
def rendering(source: str) -> Callable[..., str]:
    """``render_chat`` of a template, as far as turns go."""
    made = template_helper.environment()
    kept: OrderedDict[Any, Any] = OrderedDict()

    def render(messages: list[dict[str, Any]]) -> str:
        told = template_helper.render(kept, made, {"template": source, "variables": {"messages": messages}})
        if "refused" in told:
            raise InvalidRequest(told["refused"])
        return told["text"]

    return render


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_template_takes_is_found_by_trying(name: str) -> None:
    source, turns = TEMPLATES[name]
    assert turns_of(rendering(source)) == turns


def test_a_template_that_refuses_even_a_user_is_left_alone() -> None:
    assert turns_of(rendering("{{ raise_exception('no') }}")) == Turns()


roles = st.lists(st.sampled_from(["system", "user", "assistant", "call"]), min_size=1, max_size=9)


def conversation(kinds: list[str]) -> list[dict[str, Any]]:
    """Messages of those kinds, each with a text of its own; a call is followed by its result."""
    made = []
    for at, kind in enumerate(kinds):
        if kind == "call":
            made.append({"role": "assistant", "content": "", "tool_calls": [{"id": f"c{at}"}]})
            made.append({"role": "tool", "content": f"text{at}.", "tool_call_id": f"c{at}"})
        else:
            made.append({"role": kind, "content": f"text{at}."})
    return made


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "gemma"])
@settings(deadline=None)
@given(kinds=roles)
def test_every_text_and_every_call_is_told_once_and_in_order(name: str, kinds: list[str]) -> None:
    source, turns = TEMPLATES[name]
    messages = conversation(["user", *kinds] if kinds[0] == "call" else kinds)
    told = rendering(source)(folded(messages, turns))
    texts = [message["content"] or message["tool_calls"][0]["id"] for message in messages]
    places = [told.find(text) for text in texts]
    assert -1 not in places
    assert places == sorted(places)
    assert all(told.count(text) == 1 for text in texts if text.startswith("text"))


@settings(deadline=None)
@given(kinds=st.lists(st.sampled_from(["system", "user", "assistant"]), min_size=1, max_size=9))
def test_a_template_without_system_turns_and_tools_takes_any_order_of_the_others(kinds: list[str]) -> None:
    source, turns = TEMPLATES["gemma"]
    told = rendering(source)(folded(conversation(kinds), turns))
    assert "<system>text" not in told
    assert [told.count(f"text{at}.") for at in range(len(kinds))] == [1] * len(kinds)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(deadline=None)
@given(kinds=st.lists(st.sampled_from(["system", "user"]), min_size=1, max_size=5), later=roles)
def test_a_conversation_that_goes_on_keeps_its_beginning(name: str, kinds: list[str], later: list[str]) -> None:
    source, turns = TEMPLATES[name]
    later = [kind for kind in later if kind != "call"]
    before = conversation(["user", *kinds])
    after = conversation(["user", *kinds, "assistant", *later])
    told = [rendering(source)(folded(messages, turns)) for messages in (before, after)]
    if name != "hoists":
        assert told[1].startswith(told[0])
    else:
        assert folded(after, turns)[: len(folded(before, turns))] == folded(before, turns)


def test_system_turns_at_the_head_are_one_and_later_ones_stay_marked_where_they_are() -> None:
    system, user, answer = ({"role": role, "content": role[0].upper()} for role in ("system", "user", "assistant"))
    late = {"role": "system", "content": "late"}
    told = folded([system, {"role": "system", "content": "T"}, user, late, answer, late, user], Turns("first"))
    assert told == [
        {"role": "system", "content": "S\n\nT"},
        {"role": "user", "content": "U\n\n<system>\nlate\n</system>"},
        answer,
        {"role": "user", "content": "<system>\nlate\n</system>\n\nU"},
    ]


def test_a_template_without_a_system_turn_is_told_it_with_the_first_user() -> None:
    told = folded([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}], Turns("none"))
    assert told == [{"role": "user", "content": "S\n\nU"}]


def test_an_answer_that_comes_first_follows_an_empty_user_turn_where_users_begin() -> None:
    answer = {"role": "assistant", "content": "Hello!"}
    assert folded([answer], Turns(repeated=False)) == [{"role": "user", "content": ""}, answer]
    assert folded([answer], Turns()) == [answer]


def test_turns_that_become_one_keep_their_calls_and_thoughts() -> None:
    first = {"role": "assistant", "content": "", "reasoning_content": "a", "tool_calls": [1]}
    second = {"role": "assistant", "content": "x", "reasoning_content": "b", "tool_calls": [2]}
    (told,) = folded([{"role": "user", "content": "U"}, first, second], Turns(repeated=False))[1:]
    assert told == {"role": "assistant", "content": "x", "reasoning_content": "a\n\nb", "tool_calls": [1, 2]}


def test_a_user_after_a_tool_joins_its_result_where_none_may_follow() -> None:
    tool, user = {"role": "tool", "content": "4", "tool_call_id": "c"}, {"role": "user", "content": "And?"}
    assert folded([tool, user], Turns(user_after_tool=False)) == [{**tool, "content": "4\n\nAnd?"}]
    assert folded([tool, user], Turns()) == [tool, user]
