"""The benchmark of conversations counts what it says it counts, and a small instance of it runs."""

import shutil
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from benchmarks.conversation import PARTS, _interleaved, ask, converse, counted, kept_in, over_new, prepared
from benchmarks.sessions import END, Plan, Session, Turn, common, rendered, words

SMALL = Plan(system=60, turns=4, total=500, answer=8)


def played(seed: int, plan: Plan = SMALL, remembers: bool = True) -> Session:
    """A session with a server that knows all of its past, or nothing."""
    session = Session(seed, plan, words(Random(0), plan.system))  # noqa: S311  not for secrets
    for number in range(plan.turns):
        turn = session.next()
        cached = turn.prompt - turn.new if remembers else 0
        session.answered(f"{number:08}", turn.prompt, cached, 0.1)
    return session


def test_one_character_is_one_token_of_a_prompt() -> None:
    messages = [{"role": "user", "content": "Hello"}]
    assert len(rendered(messages)) == len(".user\nHello.\n" + ".assistant\n")


@pytest.mark.parametrize("seed", range(5))
def test_new_is_what_lies_beyond_all_that_was_read_or_generated(seed: int) -> None:
    plan = Plan(system=60, turns=20, total=3000, answer=8, edits=0.2, branches=0.2, thoughts=0.2)
    session = played(seed, plan)
    assert counted([session])[0] == counted([session])[1]
    assert {turn.kind for turn in session.turns} == {"plain", "edit", "branch", "thoughts"}
    for before, turn in pairwise(session.turns):
        if turn.kind == "plain":
            known = rendered(before.messages) + before.text[:-1]
            assert rendered(turn.messages).startswith(known + before.text[-1] + END)
            assert turn.new == turn.prompt - len(known), "the last token of an answer was told, and never read"
        else:
            assert turn.new > turn.prompt - len(rendered(before.messages)) - 8


def test_sessions_of_one_seed_say_the_same_and_others_do_not() -> None:
    assert played(1).turns == played(1).turns
    assert played(1).turns != played(2).turns


def test_a_server_that_knows_nothing_computes_all_of_every_prompt() -> None:
    session = played(3, remembers=False)
    computed, new = counted([session])
    assert computed == sum(turn.prompt for turn in session.turns)
    assert computed > 2 * new
    assert over_new([session]) == f"{computed} of {new}, {computed / new:.2f}"
    assert counted([session], since=3)[0] == session.turns[3].prompt


def test_a_server_that_counts_otherwise_is_found_out() -> None:
    session = Session(0, SMALL, "You are.")
    turn = session.next()
    with pytest.raises(RuntimeError, match=f"a prompt of {turn.prompt} tokens was counted as {turn.prompt + 1}"):
        session.answered("", turn.prompt + 1, 0, 0.1)


@pytest.mark.parametrize(
    ("a", "b", "length"), [("", "x", 0), ("abc", "abc", 3), ("abcd", "abxd", 2), ("a" * 99, "a" * 40, 40)]
)
def test_a_common_beginning_ends_where_they_differ(a: str, b: str, length: int) -> None:
    assert common(a, b) == common(b, a) == length


def test_a_small_session_runs_on_a_server(tmp_path: Path) -> None:
    """It is told to stop after a few turns and started again, and goes on from what it finds on disk."""
    setting = replace(prepared(tmp_path, SMALL, ["plain"]), warm=False)
    flags = ("--no-spare-process", *kept_in(tmp_path / "disk"))
    session = Session("small", SMALL, setting.system("small"))
    with setting.serve("plain", *flags) as server, setting.floor("plain") as floor:
        for _ in range(SMALL.turns):
            assert all(alone > 0 for _, alone in _interleaved(server, floor, "plain", [session]))
    last = session.turns[-1]
    with setting.serve("plain", *flags) as server:
        again = ask(server, "plain", last.messages, SMALL.answer)
        went_on = converse(server, "plain", session)
        metrics = server.ask("GET", "/metrics").decode()
    computed, new = counted([session])
    assert new <= computed < sum(turn.prompt for turn in session.turns)
    if shutil.disk_usage(tmp_path).free > 11 << 30:
        assert (again.text, again.cached) == (last.text, last.prompt - 1)
        assert went_on.computed <= went_on.new + 20
        assert 'switchyard_prefix_hits_total{model="plain",tier="disk"} 1.0' in metrics
        assert f'switchyard_prefix_tokens_spared_total{{model="plain",tier="disk"}} {last.prompt - 1}.0' in metrics
        assert 'switchyard_disk_cache_faults_total{model="plain"} 0.0' in metrics
    assert all(isinstance(turn, Turn) and len(turn.text) == SMALL.answer for turn in session.turns)
    assert set(PARTS) == {"turns", "bytes", "eight", "beside"}
