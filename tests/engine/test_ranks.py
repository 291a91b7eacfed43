"""How a model is divided, what is told of it before it is loaded, and what host files say."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from app.engine.client.group import plan
from app.engine.facts import DeviceFacts
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.load.share import ShareRefused, divided, exhausted, made_real, pipelined
from app.engine.mlx.ranks.operations import encoded, understood
from app.engine.ranks import Ranks
from app.errors import ModelUnusable
from app.registry.footprint import footprint
from tests.support.tiny import make_tiny, make_uneven, tiny

CUDA, CPU = DeviceFacts("cuda", 1 << 30, 2), DeviceFacts("cpu", 1 << 30, 4)


class Seats:
    """A group that nobody computes with."""

    def __init__(self, size: int, rank: int = 0) -> None:
        self.size = lambda: size
        self.rank = lambda: rank


def changed(directory: Path, **fields: Any) -> Path:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | fields))
    return directory


def test_each_rank_holds_its_part_of_the_layers_and_the_whole_of_what_all_need() -> None:
    parts = [divided(tiny(), "auto", Seats(2, rank), "ring") for rank in (0, 1)]
    sizes = [exhausted(made_real(part)) for part in parts]
    whole = footprint(tiny(), half_bytes=4)
    embedding = parts[0].model.embed_tokens.weight.nbytes
    layers = whole.weights - embedding
    assert sizes[0] == sizes[1]
    assert embedding + layers / 2 <= sizes[0] < embedding + layers / 2 * 1.05
    told = footprint(tiny(), half_bytes=4, ranks=(2, 2))
    assert sizes[0] == pytest.approx(footprint(tiny(), half_bytes=4, ranks=(2, 1)).weights, rel=0.05)
    assert sum(sizes) == pytest.approx(told.weights, rel=0.05)
    shapes = [dict(tree_flatten(part.parameters())) for part in parts]
    up = "model.layers.0.mlp.up_proj.weight"
    together = mx.concatenate([shapes[0][up], shapes[1][up]])
    assert mx.array_equal(together, mx.load(str(tiny() / "model.safetensors"))[up])


@pytest.mark.parametrize(
    ("ranks", "fields", "words"),
    [
        (3, {}, "num_attention_heads = 4 cannot be divided by 3 ranks"),
        (4, {}, "num_key_value_heads = 2 cannot be divided by 4 ranks"),
        (2, {"model_type": "gemma", "head_dim": 16}, "knows no way to divide models of type gemma"),
    ],
)
def test_what_cannot_be_divided_says_why(tmp_path: Path, ranks: int, fields: dict[str, Any], words: str) -> None:
    directory = changed(make_tiny(tmp_path / "m", seed=0), **fields)
    with pytest.raises(ShareRefused, match=words):
        divided(directory, "auto", Seats(ranks), "ring")


def hosts(path: Path, *entries: dict[str, Any], **more: Any) -> Ranks:
    path.write_text(json.dumps({"hosts": entries} | more if more else entries))
    return Ranks(hosts=str(path))


HERE, THERE = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}, {"ssh": "mac-2", "ips": ["10.0.0.2"]}


def test_ranks_of_one_machine_have_ports_of_their_own_and_gpus_where_there_are_some() -> None:
    on_cpu, on_cuda = plan(Ranks(2), CPU), plan(Ranks(2), CUDA)
    with on_cpu.door, on_cuda.door:
        assert [seat.backend for seat in (*on_cpu.seats, *on_cuda.seats)] == ["ring"] * 2 + ["nccl"] * 2
        ring = json.loads(on_cpu.seats[1].files["MLX_HOSTFILE"])
        ports = [int(it.partition(":")[2]) for (it,) in ring]
        assert on_cpu.ports is not None
        assert {*ports, on_cpu.door.getsockname()[1]} == set(on_cpu.ports)
        assert [seat.variables["CUDA_VISIBLE_DEVICES"] for seat in on_cuda.seats] == ["0", "1"]
        assert (on_cpu.seats[0].beside, on_cuda.seats[0].beside) == (2, 1)
        assert on_cpu.seats[0].secret != on_cuda.seats[0].secret


def test_sums_over_nccl_are_not_captured_unless_somebody_wants_that(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    for wish in ("0", "1"):
        if wish == "1":
            monkeypatch.setenv("MLX_USE_CUDA_GRAPHS", wish)
        for device in (CPU, CUDA):
            made = plan(Ranks(2), device)
            with made.door:
                told.append([seat.variables.get("MLX_USE_CUDA_GRAPHS") for seat in made.seats])
    assert told == [[None] * 2, ["0"] * 2, [None] * 2, ["1"] * 2]


def test_a_host_file_of_mlx_launch_is_understood_in_both_its_forms(tmp_path: Path) -> None:
    for ranks in (hosts(tmp_path / "a", HERE, THERE), hosts(tmp_path / "b", HERE, THERE, backend="ring", envs=["A=1"])):
        made = plan(ranks, CPU)
        with made.door:
            assert made.ports is None
            assert [seat.names[1] for seat in made.seats] == ["rank 1 (mac-2)"] * 2
            assert json.loads(made.seats[1].files["MLX_HOSTFILE"]) == [["127.0.0.1:32323"], ["10.0.0.2:32324"]]
            assert made.seats[0].beside == 1
    assert made.seats[1].variables["A"] == "1"


@pytest.mark.parametrize(
    ("entries", "more", "words"),
    [
        ([HERE], {}, "length >= 2"),
        ([{"ssh": "127.0.0.1"}, THERE], {}, "addresses"),
        ([HERE, THERE], {"backend": "mpi"}, "mpi"),
        ([HERE, THERE], {"backend": "jaccl"}, "RDMA"),
        ([{"ssh": "far", "ips": ["203.0.113.9"]}, THERE], {}, "this machine"),
        ([{"ssh": 3}, THERE], {}, "ssh"),
    ],
)
def test_a_host_file_that_cannot_be_used_says_why(
    tmp_path: Path, entries: list[dict[str, Any]], more: dict[str, str], words: str
) -> None:
    with pytest.raises(ModelUnusable, match=words) as refusal:
        plan(hosts(tmp_path / "hosts.json", *entries, **more), CPU)
    assert "hosts.json" in refusal.value.message


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(st.none() | st.booleans() | st.integers(), lambda inner: st.lists(inner, max_size=4), max_leaves=12)
)
def test_arguments_of_operations_come_as_they_were(
    argument: int | list[int | list[int | list[int | None] | None] | None] | None,
) -> None:
    kv = KV([], 1, merged=False)
    assert understood(encoded([argument, kv, (1, 2)], lambda _: 7), {7: kv}) == [argument, kv, [1, 2]]


def test_what_cannot_be_told_to_other_ranks_is_not() -> None:
    with pytest.raises(TypeError, match="array"):
        encoded([mx.zeros(1)], lambda _: 0)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_no_rank_holds_more_than_its_part_and_what_all_need_not_even_while_it_loads(
    tmp_path: Path, dtype: mx.Dtype
) -> None:
    directory = make_tiny(tmp_path / "m", seed=0, width=512, layers=6)
    file = str(directory / "model.safetensors")
    mx.save_safetensors(file, {name: array.astype(dtype) for name, array in mx.load(file).items()})
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    part = divided(directory, "auto", Seats(2), "ring")
    nbytes = exhausted(made_real(part))
    sizes = {name: array.nbytes for name, array in tree_flatten(part.parameters())}
    everywhere = sum(size for name, size in sizes.items() if "embed" in name)
    wanted = everywhere + (footprint(directory, half_bytes=4).weights - everywhere) / 2
    assert nbytes < 1.02 * wanted
    assert mx.get_active_memory() - before < 1.02 * wanted
    assert mx.get_peak_memory() - before < 1.2 * wanted


def test_layers_that_cannot_be_divided_are_shared_out_where_the_backend_can_send(tmp_path: Path) -> None:
    directory = make_uneven(tmp_path / "m")
    parts = [divided(directory, "auto", Seats(2, rank), "ring") for rank in (0, 1)]
    assert all(pipelined(part) for part in parts)
    assert [[layer is None for layer in part.model.layers] for part in parts] == [[True, False], [False]]
    with pytest.raises(ShareRefused, match="num_key_value_heads = 3 cannot be divided by 2 ranks"):
        divided(directory, "auto", Seats(2), "nccl")
