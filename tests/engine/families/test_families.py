"""Each architecture says alone and in company what mlx-lm's model says itself; a few of them in every run.

All of them with ``SWITCHYARD_FAMILIES=all``, which takes some minutes, or those that are named there.
"""

import os
from pathlib import Path

import mlx.core as mx
import pytest

from tests.engine.families.bench import Bench, build, loaded
from tests.engine.families.configs import OWN
from tests.engine.families.report import PAGE, line, written

FEW = ("llama", "gemma2", "gemma3_text", "granitemoehybrid", "mamba", "recurrent_gemma", "dbrx", "longcat_flash_ngram")
"""One of each kind: padded, masked with an axis more, sliding, states told of padding and not, states that know their
first token, graphs that look at their tokens, states of the last few tokens."""
NAMED = os.environ.get("SWITCHYARD_FAMILIES", " ".join(FEW))
WANTED = tuple(OWN) if NAMED == "all" else tuple(NAMED.split())


@pytest.mark.parametrize("family", WANTED)
def test_a_family_says_the_same_alone_and_in_company(family: str) -> None:
    try:
        made = loaded(family, build(family))
    except RuntimeError as failure:
        pytest.skip(f"this machine cannot run it: {failure}")
    bench = Bench(family, made)
    wrong = {name: told for name, scenario in bench.scenarios() if (told := scenario()) is not None}
    assert wrong == {}
    if mx.default_device() == mx.Device(mx.cpu) and line(family, made) not in PAGE.read_text():
        pytest.fail(f"docs/families.md tells it otherwise: {line(family, made)}")


def test_the_page_of_families_names_each_once() -> None:
    rows = [row.split("`")[1] for row in PAGE.read_text().splitlines() if row.startswith("| `")]
    assert sorted(rows) == sorted(OWN)


def test_the_page_is_what_is_written_of_its_own_rows() -> None:
    page = PAGE.read_text()
    assert page == written([row for row in page.splitlines() if row.startswith("| `")])


def test_every_architecture_of_mlx_lm_is_in_the_table() -> None:
    import mlx_lm.models  # noqa: PLC0415

    parts = {"activations", "base", "bitlinear_layers", "cache", "gated_delta", "mla", "pipeline", "rope_utils", "ssm"}
    elsewhere = {
        "switch_layers": "a part of others",
        "olmo": "it needs a package of its own, without which it ends the process",
        "prism_hadamard_qwen35": "it takes weights of its own form only",
    }
    modules = {path.stem for path in Path(mlx_lm.models.__file__).parent.glob("*.py")}
    assert modules - parts - set(elsewhere) - {"__init__"} == set(OWN)
