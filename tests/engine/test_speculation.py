"""Speculative decoding: the texts are those without a draft, whatever the draft says; what it spares and what it costs.

``right`` has the target's own logits at half its layers; ``wrong`` has other weights and is hardly ever right.
"""

import asyncio
from itertools import pairwise

import mlx.core as mx
import pytest
from mlx_lm.models import llama
from mlx_lm.models.cache import RotatingKVCache

from app.engine.base import Sequence, Token
from app.engine.grammar import Grammar
from app.engine.mlx.loader import MLXLoader
from app.engine.mlx.memory import release
from app.engine.mlx.pace import SHORTEST_SLICE
from app.engine.mlx.prefix_cache import PrefixPool
from app.engine.mlx.speculation import FIRST, LONGEST_PAUSE, MOST, OPENING, PAUSE, ROUNDS, Worth
from app.engine.mlx.step import DeviceStep
from app.engine.options import DraftOptions, LoadOptions
from app.errors import ModelUnusable
from app.schemas.sampling import Sampling
from tests.engine.test_engine import GREEDY, ids, prompt, run
from tests.support.tiny import make_tiny

SEEDED = Sampling(temperature=0.7, top_p=0.9, seed=5)
SAMPLINGS = {"greedy": GREEDY, "seeded": SEEDED, "whole": Sampling(seed=6), "cut": Sampling(seed=7, top_k=5, min_p=0.1)}
SIZE = {"width": 128, "config": {"num_attention_heads": 4, "num_key_value_heads": 2}}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The target is its draft and two layers that add nothing."""
    root = tmp_path_factory.mktemp("drafts")
    make_tiny(root / "right", seed=4, layers=2, **SIZE)
    make_tiny(root / "wrong", seed=9, layers=1, **SIZE)
    target = make_tiny(root / "target", seed=4, layers=4, **SIZE)
    weights = dict(mx.load(str(target / "model.safetensors")))
    for layer in (2, 3):
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            weights[f"model.layers.{layer}.{name}.weight"] *= 0
    mx.save_safetensors(str(target / "model.safetensors"), weights, metadata={"format": "mlx"})
    return root


@pytest.fixture(scope="module")
def load(loader, models):
    """Engines of the target by their draft's name, each with a prefix pool of its own; rounds cost no time."""
    engines = []

    async def load(draft=None, kv_bits=None, draft_bits=None, **more):
        own = MLXLoader(loader._thread, PrefixPool(8 << 20), max_rows=16, slice_tokens=64)
        drafts = DraftOptions(name=draft, path=models / draft, kv_bits=draft_bits) if draft else None
        options = LoadOptions(kv_bits=kv_bits, draft=drafts)
        engine = await own.load(models / "target", name="target", options=options, **more)
        if draft and engine._batch._speculation:
            engine._batch._speculation.clock = lambda: 0.0
        engines.append(engine)
        return engine

    return load


@pytest.fixture(scope="module")
async def plain(load):
    engine = await load()
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
async def right(load):
    engine = await load("right")
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
async def wrong(load):
    engine = await load("wrong")
    yield engine
    await engine.close()


@pytest.fixture(params=["right", "wrong"])
def drafted(request, right, wrong):
    return {"right": right, "wrong": wrong}[request.param]


@pytest.fixture
def passes(monkeypatch):
    """Forward passes by the number of the model's layers and of the tokens in each."""
    made = []
    call = llama.Model.__call__

    def counted(self, inputs, *given, **more):
        made.append((len(self.layers), inputs.shape[1]))
        return call(self, inputs, *given, **more)

    monkeypatch.setattr(llama.Model, "__call__", counted)
    return made


def verified(passes):
    """How often the target computed several positions at once after a prompt of fewer than ``MOST`` tokens."""
    return sum(layers == 4 and 1 < width <= MOST + 1 for layers, width in passes)


async def held(engine):
    """Bytes of the draft's KV cache once the step that told the last token is over."""
    return await engine._thread.call(lambda: engine._batch._speculation.kv_bytes)


async def same(drafted, plain, *sequences):
    made, _ = await run(drafted, *sequences)
    expected, _ = await run(plain, *sequences)
    assert {key: ids(it) for key, it in made.items()} == {key: ids(it) for key, it in expected.items()}
    assert {key: it[-1].finish for key, it in made.items()} == {key: it[-1].finish for key, it in expected.items()}
    return made


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("length", [1, 2, 40, 150])
async def test_the_text_is_that_without_a_draft(drafted, plain, sampling, length):
    before = drafted.work().proposed
    await same(drafted, plain, Sequence(prompt(length, length), SAMPLINGS[sampling], max_tokens=60))
    assert drafted.work().proposed > before


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 30, 31])
async def test_an_answer_ends_at_its_length(drafted, plain, most, passes):
    made = await same(drafted, plain, Sequence(prompt(1, 60), SEEDED, max_tokens=most))
    assert len(made[0, 0]) == most
    assert all(width <= max(1, most - OPENING - 1) for layers, width in passes if layers == 4 and width < 20)


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED])
async def test_a_stop_token_inside_an_accepted_run_is_the_last(drafted, plain, sampling):
    free, _ = await run(plain, Sequence(prompt(2, 20), sampling, max_tokens=30))
    for place in range(OPENING, OPENING + 7):
        stops = frozenset({ids(free[0, 0])[place]})
        made, _ = await run(drafted, Sequence(prompt(2, 20), sampling, 60, stops))
        assert ids(made[0, 0]) == ids(free[0, 0])[: len(made[0, 0])]
        assert [token.id in stops for token in made[0, 0]] == [False] * (len(made[0, 0]) - 1) + [True]
        assert [token.finish for token in made[0, 0]] == [None] * (len(made[0, 0]) - 1) + ["stop"]


@pytest.mark.parametrize("least", [1, 5, 6, 7, 8, 20])
async def test_no_stop_token_comes_before_min_tokens(drafted, plain, least):
    free, _ = await run(plain, Sequence(prompt(3, 20), SEEDED, max_tokens=30))
    stops = frozenset(ids(free[0, 0])[:9])
    made = await same(drafted, plain, Sequence(prompt(3, 20), SEEDED, 40, stops, min_tokens=least))
    assert not stops & set(ids(made[0, 0])[:least])


@pytest.mark.parametrize(
    "more",
    [
        {"logit_bias": ((70, 3.0), (80, -100.0), (90, 2.0))},
        {"repetition_penalty": 1.3},
        {"frequency_penalty": 0.7, "presence_penalty": 0.4},
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
async def test_what_is_done_to_logits_is_done_to_those_of_a_verification(drafted, plain, more, temperature):
    before = drafted.work().proposed
    await same(drafted, plain, Sequence(prompt(4, 25), Sampling(temperature=temperature, seed=3, **more), 50))
    assert drafted.work().proposed > before


async def test_log_probabilities_are_of_the_tokens_they_stand_by(drafted, plain):
    asked = Sequence(prompt(5, 30), SEEDED, max_tokens=30, logprobs=2)
    made, _ = await run(drafted, asked)
    expected, _ = await run(plain, asked)
    for mine, its in zip(made[0, 0], expected[0, 0], strict=True):
        assert mine.id == its.id
        assert mine.logprob == pytest.approx(its.logprob, abs=1e-3)
        assert [top.id for top in mine.top] == [top.id for top in its.top]


async def test_an_answer_is_held_to_its_form(drafted, plain):
    grammar = Grammar("regex", "[a-f0-9 ]{40}")
    for engine in (drafted, plain):
        await engine.prepare(grammar)
    before = drafted.work().proposed
    stops = plain.tokenizer.eos_ids
    made = await same(drafted, plain, Sequence(prompt(6, 12), SEEDED, 60, stops, grammar=grammar))
    assert drafted.work().proposed > before
    text = "".join(plain.tokenizer.token_bytes(token.id).decode() for token in made[0, 0])
    assert len(text.removesuffix("<|im_end|>")) == 40


async def test_a_draft_that_is_right_spares_passes_of_the_target(right, plain, passes):
    for sampling in (GREEDY, SEEDED):
        passes.clear()
        before = right.work()
        await run(right, Sequence(prompt(7, 5), sampling, max_tokens=100))
        target = sum(layers == 4 for layers, _ in passes)
        proposed, accepted = right.work().proposed - before.proposed, right.work().accepted - before.accepted
        assert accepted == proposed if sampling is GREEDY else accepted > 0.9 * proposed
        assert target < 25
        passes.clear()
        await run(plain, Sequence(prompt(7, 5), sampling, max_tokens=100))
        assert sum(layers == 4 for layers, _ in passes) >= 100


async def test_a_draft_that_is_wrong_costs_no_pass_of_the_target(wrong, passes):
    await run(wrong, Sequence(prompt(7, 5), GREEDY, max_tokens=100))
    assert sum(layers == 4 for layers, _ in passes) <= 102
    assert max(width for layers, width in passes if layers == 4 and width > 4) <= FIRST + 1


async def test_rounds_that_do_not_pay_are_followed_by_longer_and_longer_pauses(load, plain, passes, monkeypatch):
    engine = await load("wrong")
    costs = {4: 1.0, 1: 0.5}
    engine._batch._speculation.clock = lambda: sum(costs[layers] for layers, _ in passes)
    await same(engine, plain, Sequence(prompt(8, 5), GREEDY, max_tokens=400))
    proposed = engine.work().proposed
    assert 0 < proposed < 40
    speculation = engine._batch._speculation
    speculation.clock = lambda: 0.0
    await run(engine, Sequence(prompt(8, 5), GREEDY, max_tokens=400))
    assert engine.work().proposed - proposed > 300
    await engine.close()


def test_drafts_grow_while_they_are_accepted_and_shrink_while_they_are_not():
    worth = Worth()
    sizes = [worth.size]
    for accepted in (4, 6, 8, 3, 2, 1, 1, 1, 1, 1, 0, 1):
        worth.judge(sizes[-1], accepted, 0.0, plain=1.0, said=10)
        sizes.append(worth.size)
    assert sizes == [4, 6, 8, 8, 7, 6, 5, 4, 3, 2, 1, 1, 3]


def test_pauses_double_until_rounds_pay_again():
    worth, said, pauses = Worth(), 3, []
    assert worth.paused(OPENING - 1)
    for seconds in (1.1,) * 7 + (0.9, 1.1):
        for _ in range(ROUNDS):
            assert not worth.paused(said)
            worth.judge(2, 0, seconds, plain=1.0, said=said)
        start = said
        while worth.paused(said):
            said += 1
        pauses.append(said - start)
    assert pauses == [PAUSE, 64, 128, 256, 512, LONGEST_PAUSE, LONGEST_PAUSE, 0, PAUSE]


async def test_it_is_off_while_rows_run_together(right, plain, passes):
    sequences = [Sequence(prompt(seed, 12 + seed), GREEDY, max_tokens=30) for seed in range(3)]
    before = right.work().proposed
    await same(right, plain, *sequences)
    made, _ = await run(right, Sequence(prompt(1, 12), SEEDED, max_tokens=20, rows=2))
    assert len(made) == 2
    assert right.work().proposed == before
    assert not verified([it for it in passes if it[1] < 10])


@pytest.mark.parametrize("sampling", ["greedy", "seeded"])
async def test_another_stream_joins_in_the_middle_and_leaves_again(drafted, plain, sampling, passes):
    alone = Sequence(prompt(20, 40), SAMPLINGS[sampling], max_tokens=300)
    expected, _ = await run(plain, alone)
    other = Sequence(prompt(21 if sampling == "greedy" else 22, 400), SAMPLINGS[sampling], max_tokens=40)
    beside, _ = await run(plain, other)
    passes.clear()
    told, proposed, joined = [], [drafted.work().proposed], None
    async for items in drafted.generate((alone,)):
        told += [item.id for item in items if isinstance(item, Token)]
        if len(told) >= 60 and joined is None:
            proposed.append(drafted.work().proposed)
            begun = len(passes)
            joined = asyncio.create_task(run(drafted, other))
    made, _ = await joined
    proposed.append(drafted.work().proposed)
    assert told == ids(expected[0, 0])
    assert ids(made[0, 0]) == ids(beside[0, 0])
    assert proposed[0] < proposed[1] < proposed[2]
    slices = [place for place, it in enumerate(passes) if place >= begun and it[0] == 4 and it[1] >= SHORTEST_SLICE]
    assert len(slices) > 2
    assert {it for it in passes[slices[0] : slices[-1]] if it[1] <= MOST + 1} <= {(4, 1)}, "nor beside a prompt"


async def test_a_row_that_is_cancelled_in_the_middle_leaves_nothing_behind(drafted, plain):
    stream = drafted.generate((Sequence(prompt(30, 40), SEEDED, max_tokens=2000),))
    told = 0
    async for items in stream:
        told += len(items)
        if told > 30:
            stream.close()
    await same(drafted, plain, Sequence(prompt(31, 40), SEEDED, max_tokens=30))
    assert await held(drafted) == 0


async def test_a_beginning_seen_before_is_computed_by_neither_model(load, plain, passes):
    engine = await load("right")
    begin = prompt(80, 150)
    await same(engine, plain, Sequence((*begin, 9, 10), SEEDED, max_tokens=20))
    passes.clear()
    made, prefilled = await run(engine, Sequence((*begin, 11, 12, 13), SEEDED, max_tokens=20))
    assert prefilled[0].cached_tokens == 150
    assert all(width < 20 for _, width in passes)
    assert any(layers == 2 for layers, _ in passes)
    expected, _ = await run(plain, Sequence((*begin, 11, 12, 13), SEEDED, max_tokens=20))
    assert ids(made[0, 0]) == ids(expected[0, 0])
    await engine.close()


async def test_a_long_prompt_is_computed_for_the_draft_in_slices_beside_the_first_tokens(load, plain, passes):
    engine = await load("right")
    await same(engine, plain, Sequence(prompt(90, 700), SEEDED, max_tokens=60))
    drafts = [place for place, (layers, width) in enumerate(passes) if layers == 2 and width > MOST]
    assert len(drafts) > 3
    assert all(passes[place][1] <= 64 for place in drafts)
    for before, after in pairwise(drafts):
        assert (4, 1) in passes[before:after], "a token of the target between two slices"
    assert (4, 1) in passes[: drafts[0]], "the first token waits for none"
    await engine.close()


@pytest.mark.parametrize(("bits", "draft_bits"), [(8, None), (4, 8), (None, 4)])
async def test_caches_of_few_bits_are_trimmed_as_well(load, bits, draft_bits):
    plain, right = await load(kv_bits=bits), await load("right", kv_bits=bits, draft_bits=draft_bits)
    for sampling in SAMPLINGS.values():
        await same(right, plain, Sequence(prompt(9, 70), sampling, max_tokens=60))
    assert right.work().accepted > 20
    for engine in (plain, right):
        await engine.close()


@pytest.mark.parametrize("sampling", SAMPLINGS)
async def test_tokens_drawn_on_the_device_are_those_without_a_draft(load, monkeypatch, sampling):
    """Metal and CUDA draw in the graph; so does a CPU that takes itself for one."""
    plain, right, wrong = await load(), await load("right"), await load("wrong")
    device = mx.default_device

    class Other:
        def __eq__(self, _other):
            return False

        __hash__ = None

    monkeypatch.setattr("app.engine.mlx.decode.mx.default_device", Other)
    for engine in (right, wrong):
        engine._batch._speculation._step = DeviceStep
    for request in (
        Sequence(prompt(10, 30), SAMPLINGS[sampling], max_tokens=50),
        Sequence(prompt(11, 30), SAMPLINGS[sampling], max_tokens=50, logprobs=1),
    ):
        await same(right, plain, request)
        await same(wrong, plain, request)
    assert right.work().accepted > 50
    monkeypatch.setattr("app.engine.mlx.decode.mx.default_device", device)
    for engine in (plain, right, wrong):
        await engine.close()


async def test_a_draft_stays_within_its_own_context(load, models, plain):
    make_tiny(models / "short", seed=4, layers=2, context=64, **SIZE)
    engine = await load("short")
    await same(engine, plain, Sequence(prompt(12, 30), GREEDY, max_tokens=80))
    assert 10 < engine.work().proposed < 34
    before = engine.work().proposed
    await same(engine, plain, Sequence(prompt(13, 70), GREEDY, max_tokens=20))
    assert engine.work().proposed == before
    await engine.close()


async def test_the_draft_counts_and_all_of_it_comes_back(loader, load, plain):
    await loader._thread.call(release)
    before = mx.get_active_memory()
    engine = await load("right")
    assert engine.nbytes > plain.nbytes
    assert engine.kv_bytes_per_token == plain.kv_bytes_per_token * 3 // 2
    assert engine.fingerprint != plain.fingerprint
    await run(engine, Sequence(prompt(14, 100), SEEDED, max_tokens=60))
    assert await held(engine) == 0
    assert mx.get_active_memory() - before >= engine.nbytes
    stream = engine.generate((Sequence(prompt(15, 100), SEEDED, max_tokens=1500),))
    await anext(stream)
    pool = engine._batch._prefixes._pool
    assert pool.nbytes > 100 * engine.kv_bytes_per_token, "the target's prompt and the draft's"
    await engine.close()
    assert pool.nbytes == 0
    await loader._thread.call(release)
    assert abs(mx.get_active_memory() - before) < 1 << 16


async def refused(load, draft):
    with pytest.raises(ModelUnusable) as raised:
        await load(draft)
    return raised.value.message


async def test_drafts_that_do_not_suit_are_refused_at_the_load(loader, load, models, monkeypatch):
    await loader._thread.call(release)
    before = mx.get_active_memory()
    advice = "Take draft_model out of its entry in models.toml, or name another draft there."
    make_tiny(models / "other", seed=4, specials=("<|more|>",), **SIZE)
    assert await refused(load, "other") == (
        "The model 'target' cannot be loaded: draft_model = 'other' has another vocabulary, so its tokens would mean "
        f"other text. {advice}"
    )
    make_tiny(models / "renamed", seed=4, **SIZE)
    renamed = (models / "renamed" / "tokenizer.json").read_text().replace("<|im_start|>", "<|im_begin|>")
    (models / "renamed" / "tokenizer.json").write_text(renamed)
    assert "has another vocabulary" in await refused(load, "renamed")
    said = await refused(load, "absent")
    assert said.startswith("The model 'target' cannot be loaded: draft_model = 'absent' cannot be loaded: ")
    assert str(models) not in said
    assert said.endswith(advice)
    make_tiny(models / "sliding", seed=4, **SIZE | {"config": SIZE["config"] | {
        "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 24
    }})  # fmt: skip
    assert "the KV cache of draft_model = 'sliding' cannot be trimmed" in await refused(load, "sliding")

    def windows(model):
        return [RotatingKVCache(max_size=16) for _ in model.layers]

    with monkeypatch.context() as patched:
        patched.setattr("app.engine.mlx.kv.make_prompt_cache", windows)
        assert "its own KV cache cannot be trimmed" in await refused(load, "right")
    await loader._thread.call(release)
    assert abs(mx.get_active_memory() - before) < 1 << 16


async def test_logits_narrower_than_the_vocabulary_are_refused_and_wider_ones_are_not(load, models, plain):
    for name, more in (("narrow", -8), ("padded", 64)):
        directory = make_tiny(models / name, seed=4, layers=2, **SIZE)
        weights = dict(mx.load(str(directory / "model.safetensors")))
        table = weights["model.embed_tokens.weight"]
        size = table.shape[0] + more
        table = table[:size] if more < 0 else mx.concatenate([table, 10 * table[:more]])
        weights["model.embed_tokens.weight"] = table
        mx.save_safetensors(str(directory / "model.safetensors"), weights, metadata={"format": "mlx"})
        config = (
            (directory / "config.json").read_text().replace(f'"vocab_size": {size - more}', f'"vocab_size": {size}')
        )
        (directory / "config.json").write_text(config)
    assert "needs logits of" in await refused(load, "narrow")
    padded = await load("padded")
    await same(padded, plain, Sequence(prompt(16, 20), GREEDY, max_tokens=60))
    assert padded.work().accepted > 30
    await padded.close()


async def test_on_cuda_the_draft_is_left_out_and_a_warning_says_so(load, plain, monkeypatch, caplog):
    with monkeypatch.context() as cuda:
        cuda.setattr(mx.cuda, "is_available", lambda: True)
        engine = await load("right")
    made, _ = await run(engine, Sequence(prompt(3, 20), GREEDY, max_tokens=30))
    expected, _ = await run(plain, Sequence(prompt(3, 20), GREEDY, max_tokens=30))
    assert made == expected
    assert engine.work().proposed == 0
    assert engine.nbytes == plain.nbytes
    assert "without its draft_model" in caplog.text
