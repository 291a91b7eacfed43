"""Sampling: both ways of drawing give exactly the distribution that the parameters define."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from app.engine.base import Sequence
from app.engine.mlx.batch.delivery import MLXTokenStream
from app.engine.mlx.draw import device as draw_device
from app.engine.mlx.draw import proposal
from app.engine.mlx.draw import proposal as compiled
from app.engine.mlx.draw import step as draw_host
from app.engine.mlx.draw.kernel import Wish, asked, by_definition, samples
from app.engine.mlx.draw.kernel import kernel as checked_kernel
from app.engine.mlx.draw.logits import LogitsProcessor
from app.engine.mlx.draw.step import PER_LAYER, DeviceStep, GreedyStep, HostStep, host_step_type
from app.engine.mlx.guide.guide import Guide
from app.engine.mlx.rows import Row
from app.schemas.sampling import Sampling
from tests.support import draw_kernel
from tests.support.batches import UNSPELT

VOCABULARY = 1000
DRAWS = 4000
SHAPES: dict[str, Callable[[], NDArray[Any]]] = {
    "peaked": lambda: np.random.default_rng(1).normal(0, 4, VOCABULARY),
    "flat": lambda: np.random.default_rng(2).normal(0, 0.3, VOCABULARY),
    "tied": lambda: np.repeat([3.0, 1.0, 0.0, -2.0], VOCABULARY // 4),
}


def row(**sampling: Any) -> Row:
    request = Sequence(prompt=(1, 2, 2), sampling=Sampling(**sampling), max_tokens=100)
    return Row(MLXTokenStream(), 0, 0, request, UNSPELT)


def reference(logits: NDArray[Any], sampling: Sampling) -> NDArray[Any]:
    """The distribution by sorting in float64, as the definition says."""
    scaled = logits.astype(np.float32).astype(np.float64) / sampling.temperature
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    above = np.array([p[p > it].sum() for it in p])
    count = np.array([(p > it).sum() for it in p])
    allowed = p >= sampling.min_p * p.max()
    allowed &= (above < sampling.top_p) | (sampling.top_p >= 1)
    allowed &= (count < sampling.top_k) | (sampling.top_k == 0)
    p = np.where(allowed, p, 0)
    return p / p.sum()


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[mx.array, mx.array]]:
    """The GPUs' kernel, as C++."""
    made = draw_kernel.compiled(tmp_path_factory.mktemp("kernel"))
    return made or pytest.skip("there is no C++ compiler")


@pytest.fixture(params=["compiled", "numpy", "device", "kernel"])
def draw(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Each way to draw."""
    if request.param == "kernel":
        made = request.getfixturevalue("kernel")
        monkeypatch.setattr(draw_device, "kernel", lambda: made)
    if request.param in {"device", "kernel"}:
        return lambda logits, rows: draw_device.draw(logits, rows)[0]
    propose = compiled.proposer()
    if request.param == "numpy":
        propose = proposal.propose
    elif propose is proposal.propose:
        pytest.skip("there is no C compiler")
    monkeypatch.setattr(draw_host, "proposer", lambda: propose)
    return draw_host.draw


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(seed=1),
        Sampling(temperature=0.7, top_p=0.9, seed=2),
        Sampling(top_k=5, seed=3),
        Sampling(min_p=0.2, seed=4),
        Sampling(temperature=1.5, top_p=0.5, top_k=50, min_p=0.01, seed=5),
    ],
    ids=lambda sampling: f"t{sampling.temperature}p{sampling.top_p}k{sampling.top_k}m{sampling.min_p}",
)
def test_draws_follow_the_defined_distribution(draw: Callable[..., Any], shape: str, sampling: Sampling) -> None:
    logits = SHAPES[shape]()
    expected = reference(logits, sampling)
    it = row(**{name: getattr(sampling, name) for name in sampling.__struct_fields__})
    batch = mx.array(np.repeat(logits[None], 500, axis=0), dtype=mx.float32)
    drawn = np.concatenate([np.array(draw(batch, [it] * 500)) for _ in range(DRAWS // 500)])
    counts = np.bincount(drawn, minlength=VOCABULARY)
    assert not counts[expected == 0].any(), "a token outside the allowed set was drawn"
    # Pearson's statistic over bins of enough expected draws; its mean is the degrees of freedom, its variance twice.
    order = np.argsort(-expected)
    groups = np.cumsum(expected[order] * DRAWS) // 20
    observed = np.array([counts[order][groups == g].sum() for g in np.unique(groups)])
    wanted = np.array([expected[order][groups == g].sum() * DRAWS for g in np.unique(groups)])
    keep = wanted > 5
    statistic = (((observed - wanted) ** 2) / np.maximum(wanted, 1e-9))[keep].sum()
    freedom = max(1, keep.sum() - 1)
    assert statistic < freedom + 5 * np.sqrt(2 * freedom) + 5


def test_a_seed_draws_the_same_alone_and_in_company(draw: Callable[..., Any]) -> None:
    logits = mx.array(np.random.default_rng(3).normal(0, 1, (3, VOCABULARY)), dtype=mx.float32)
    together = [row(seed=7), row(seed=8), row(seed=9, top_p=0.5)]
    alone = [row(seed=7), row(seed=8), row(seed=9, top_p=0.5)]
    for _ in range(5):
        both = draw(logits, together).tolist()
        assert both == [draw(logits[i : i + 1], [alone[i]]).item() for i in range(3)]


@pytest.mark.parametrize("cut", [{"top_p": 0.0}, {"top_p": 1e-9}, {"top_p": 5e-324}, {"top_k": 1}, {"min_p": 1.0}])
def test_the_narrowest_cut_leaves_the_likeliest_token(draw: Callable[..., Any], cut: dict[str, float]) -> None:
    logits = mx.array(np.random.default_rng(6).normal(0, 1, (20, VOCABULARY)), dtype=mx.float32)
    drawn = draw(logits, [row(seed=seed, temperature=2.0, **cut) for seed in range(20)])
    assert drawn.tolist() == mx.argmax(logits, axis=-1).tolist()


@pytest.mark.parametrize("temperature", [1e-300, 1e-30, 1e-6])
def test_a_temperature_near_0_is_greedy(draw: Callable[..., Any], temperature: float) -> None:
    logits = mx.array(np.random.default_rng(7).normal(0, 1, (20, VOCABULARY)), dtype=mx.float32)
    drawn = draw(logits, [row(seed=seed, temperature=temperature) for seed in range(20)])
    assert drawn.tolist() == mx.argmax(logits, axis=-1).tolist()


@pytest.fixture(params=["host", "device", "kernel"])
def step_type(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[HostStep | DeviceStep]:
    """How a step's tokens are drawn."""
    if request.param == "kernel":
        made = request.getfixturevalue("kernel")
        monkeypatch.setattr(draw_device, "kernel", lambda: made)
    return HostStep if request.param == "host" else DeviceStep


@pytest.fixture
def says(step_type: type[HostStep | DeviceStep]) -> Callable[..., list[int]]:
    """One step's tokens."""

    def step(rows: list[Row], logits: mx.array, processor: LogitsProcessor | None = None) -> list[int]:
        processor = processor or LogitsProcessor(rows)
        made = step_type(rows, logits, processor.process(logits))
        processor.count(made.tokens)
        return made.read()[0]

    return step


def test_temperature_zero_takes_the_likeliest_beside_sampled_rows(says: Callable[..., list[int]]) -> None:
    logits = mx.array(np.random.default_rng(4).normal(0, 1, (3, VOCABULARY)), dtype=mx.float32)
    tokens = says([row(temperature=0), row(seed=1), row(temperature=0)], logits)
    likeliest = mx.argmax(logits, axis=-1).tolist()
    assert (tokens[0], tokens[2]) == (likeliest[0], likeliest[2])


def test_a_bias_of_100_forces_and_of_minus_100_bans(says: Callable[..., list[int]]) -> None:
    logits = mx.zeros((2, VOCABULARY)).at[:, 3].add(50.0)
    rows = [row(temperature=0, logit_bias=((3, -100.0), (4, 1.0))), row(temperature=1, logit_bias=((9, 100.0),))]
    assert says(rows, logits) == [4, 9]


def test_penalties_follow_openai_and_move_on_with_their_rows(says: Callable[..., list[int]]) -> None:
    logits = mx.zeros((2, 6)).at[:, mx.array([1, 2, 3])].add(mx.array([2.0, 1.9, 1.0]))
    plain, penalised = row(temperature=0), row(temperature=0, frequency_penalty=0.5, presence_penalty=0.4)
    first = LogitsProcessor([plain, penalised])
    # 1 costs 0.4 + 0.5 after its first appearance, then 2 leads at 1.9, then 1 again at 1.1, 3 at 1.0 is last.
    assert [says([plain, penalised], logits, first)[1] for _ in range(3)] == [1, 2, 1]
    second = LogitsProcessor([penalised], first)
    # now 1 stands at 2.0 - 0.4 - 1.0 = 0.6, 2 at 1.9 - 0.9 = 1.0, 3 at 1.0: the first of the two equals
    assert says([penalised], logits[1:], second)[0] in (2, 3)
    assert says([penalised], logits[1:], second)[0] in (2, 3)
    assert says([penalised], logits[1:], second) == [1]


def test_the_repetition_penalty_counts_the_prompt(says: Callable[..., list[int]]) -> None:
    logits = mx.array([[0.0, 4.0, 3.9, 3.0, -1.0]])
    told = says([row(temperature=0, repetition_penalty=1.5)], logits)
    assert told == [3], "1 and 2 stand in the prompt and are divided"


def test_stop_tokens_are_not_drawn_before_min_tokens(says: Callable[..., list[int]]) -> None:
    request = Sequence((1,), Sampling(temperature=0), max_tokens=9, stop_ids=frozenset({2}), min_tokens=1)
    it = Row(MLXTokenStream(), 0, 0, request, UNSPELT)
    logits = mx.array([[0.0, 1.0, 5.0]])
    assert says([it], logits) == [1]
    it.queued = 1
    assert says([it], logits) == [2]


@pytest.mark.parametrize("way", [{"temperature": 0}, {}, {"top_p": 0.5, "top_k": 3, "seed": 1}])
def test_what_may_come_is_drawn_though_everything_is_banned(
    says: Callable[..., list[int]], way: dict[str, Any]
) -> None:
    banned = tuple((token, -100.0) for token in range(VOCABULARY))
    it = row(logit_bias=banned, **way)
    mask = np.zeros(-(-VOCABULARY // 32), dtype=np.int32)
    mask.view(np.uint32)[70 >> 5] = 1 << (70 & 31)
    it.guide = cast("Guide", SimpleNamespace(mask=lambda: mask))
    assert says([it], mx.zeros((1, VOCABULARY))) == [70]


def test_what_is_built_on_a_step_before_it_is_read_holds_its_tokens() -> None:
    logits = mx.array(np.random.default_rng(4).normal(0, 1, (3, VOCABULARY)), dtype=mx.float32)
    step = HostStep([row(seed=seed) for seed in range(3)], logits, logits)
    built = step.tokens[1:] + 1
    tokens, _ = step.read()
    assert built.tolist() == [token + 1 for token in tokens[1:]]


WAYS: tuple[Any, ...] = (
    {},
    {"temperature": 0},
    {"top_p": 0.9},
    {"top_k": 5, "min_p": 0.1},
    {"seed": 3, "temperature": 0.01},
)
SPOILT = {
    "one is not a number": lambda logits: logits.__setitem__(700, np.nan),
    "none is a number": lambda logits: logits.fill(np.nan),
    "one is infinite": lambda logits: logits.__setitem__(3, np.inf),
    "infinite both ways": lambda logits: logits.__setitem__(slice(0, 2), [np.inf, -np.inf]),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_row_without_numbers_fails_alone_however_it_is_drawn_for(
    step_type: type[HostStep | DeviceStep], spoil: Callable[..., Any]
) -> None:
    rows = [row(**way) for way in WAYS for _ in range(2)]
    logits = np.random.default_rng(5).normal(0, 2, (len(rows), VOCABULARY)).astype(np.float32)
    for place in range(0, len(rows), 2):
        spoil(logits[place])
    values = mx.array(logits)
    tokens, _ = step_type(rows, values, values).read()
    assert [it.failure is not None for it in rows] == [True, False] * len(WAYS)
    assert all(0 <= token < VOCABULARY for token in tokens)


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_so_does_one_whose_likeliest_token_is_found_in_the_graph(spoil: Callable[..., Any]) -> None:
    logits = np.random.default_rng(5).normal(0, 2, (4, VOCABULARY)).astype(np.float32)
    rows, likeliest = [row(temperature=0) for _ in logits], logits.argmax(axis=1).tolist()
    spoil(logits[1])
    logits[2] = -np.inf
    tokens, scores = GreedyStep(rows, mx.array(logits), mx.array(logits)).read()
    assert [it.failure is not None for it in rows] == [False, True, False, False]
    assert [tokens[0], *tokens[2:]] == [likeliest[0], 0, likeliest[3]]
    assert 0 <= tokens[1] < VOCABULARY
    assert not scores


@settings(deadline=None)
@given(
    wishes=st.lists(st.sampled_from(("greedy", "sampled", "guided", "scored")), min_size=1, max_size=6),
    layers=st.integers(1, 4),
    vocabulary=st.sampled_from((1000, PER_LAYER, 2 * PER_LAYER)),
)
def test_only_few_rows_that_want_the_likeliest_token_have_it_found_in_the_graph(
    wishes: list[str], layers: int, vocabulary: int
) -> None:
    rows = []
    for wish in wishes:
        sampling = Sampling(temperature=float(wish == "sampled"))
        request = Sequence((1,), sampling, max_tokens=9, logprobs=0 if wish == "scored" else None)
        rows.append(Row(MLXTokenStream(), 0, 0, request, UNSPELT))
        if wish == "guided":
            rows[-1].guide = cast("Guide", SimpleNamespace())
    few = len(rows) * vocabulary <= PER_LAYER * layers
    expected = GreedyStep if few and set(wishes) == {"greedy"} else HostStep
    assert host_step_type(rows, mx.zeros((len(rows), vocabulary)), layers) is expected


def test_where_every_token_is_banned_one_of_them_is_drawn_and_nothing_fails(
    step_type: type[HostStep | DeviceStep],
) -> None:
    rows = [row(**way) for way in WAYS]
    banned = mx.full((len(rows), VOCABULARY), -mx.inf)
    tokens, _ = step_type(rows, banned, banned).read()
    assert tokens == [0] * len(rows)
    assert all(it.failure is None for it in rows)


@pytest.mark.parametrize("way", ["kernel", "graph"])
def test_from_what_a_load_looks_at_kernel_and_graph_draw_what_the_definition_says(
    kernel: Callable[..., tuple[mx.array, mx.array]], way: str
) -> None:
    logits, wishes = samples()
    draws = kernel if way == "kernel" else draw_device.by_graph
    tokens, failed = draws(mx.array(logits), asked(wishes))
    assert list(zip(tokens.tolist(), failed.tolist(), strict=True)) == by_definition(logits, wishes)
    assert failed.tolist() == [False] * (len(wishes) - 2) + [True, True]


def test_no_uniform_number_of_that_comparison_lies_near_an_edge() -> None:
    logits, wishes = samples()
    for row, (sampling, uniform) in zip(logits, wishes, strict=True):
        if sampling.temperature and np.isfinite(row).all():
            edges = reference(row, sampling).cumsum()
            assert np.abs(edges - uniform).min() > 1e-4


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.float32, st.integers(1, 60), elements=st.integers(-640, 640).map(lambda it: it / 32))
    | st.builds(
        lambda seed, size, spread: np.asarray(np.random.default_rng(seed).normal(0, spread, size), np.float32),
        st.integers(0, 2**32 - 1),
        st.integers(1, 1500),
        st.sampled_from([0.1, 1.0, 5.0, 30.0]),
    ),
    st.builds(
        Sampling,
        temperature=st.sampled_from([0.0, 0.05, 0.7, 1.0, 2.0]),
        top_p=st.sampled_from([1e-9, 0.05, 0.5, 0.95, 1.0]),
        top_k=st.sampled_from([0, 1, 2, 40, 1400]),
        min_p=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    ),
    st.floats(0, 1, exclude_max=True),
)
def test_the_kernel_draws_what_the_definition_says(
    kernel: Callable[..., tuple[mx.array, mx.array]], logits: NDArray[Any], sampling: Sampling, uniform: float
) -> None:
    """A token of the set that is allowed, whose part of the cumulative distribution holds the uniform number."""
    token = kernel(logits[None], asked([Wish(sampling, uniform)]))[0].item()
    if not sampling.temperature:
        assert token == logits.argmax()
        return
    whole = np.sort(reference(logits, Sampling(temperature=sampling.temperature)))[::-1]
    assume(np.abs(whole.cumsum()[:-1] - sampling.top_p).min(initial=1) > 1e-5)  # else rounding says who is in the set
    assume(np.abs(whole[whole < whole[0]] / whole[0] - sampling.min_p).min(initial=1) > 1e-5)
    share = reference(logits, sampling)
    assert share[token] > 0
    edges = share.cumsum()
    assert edges[token] - share[token] - 1e-5 <= uniform <= edges[token] + 1e-5


def test_the_kernel_draws_the_same_with_several_threads(
    kernel: Callable[..., tuple[mx.array, mx.array]], tmp_path: Path
) -> None:
    several = draw_kernel.compiled(tmp_path, threads=4)
    assert several is not None
    rng = np.random.default_rng(8)
    logits = rng.normal(0, 4, (6, VOCABULARY)).astype(np.float32)
    wishes = asked([Wish(Sampling(top_p=0.9, top_k=50, min_p=0.01), uniform) for uniform in rng.random(6)])
    assert several(logits, wishes)[0].tolist() == kernel(logits, wishes)[0].tolist()


@pytest.mark.parametrize("fault", ["another token", "raises"])
def test_a_kernel_that_says_something_else_is_not_taken(
    kernel: Callable[..., tuple[mx.array, mx.array]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    def other(logits: mx.array, wishes: NDArray[Any]) -> tuple[mx.array, mx.array]:
        if fault == "raises":
            raise RuntimeError("it does not compile")
        tokens, failed = kernel(logits, wishes)
        return tokens + 1, failed

    for made, taken in ((kernel, kernel), (other, None)):
        monkeypatch.setattr("app.engine.mlx.draw.kernel._made", lambda made=made: made)
        assert checked_kernel.__wrapped__() is taken
    assert "tokens are drawn by a graph" in caplog.text
