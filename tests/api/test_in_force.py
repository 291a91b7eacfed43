"""The settings of a model that are in force, and where each of them is written."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.read.in_force import in_force
from app.generation.job import sampling_in_force
from app.main import create_app
from app.registry.abilities import Abilities
from app.registry.status import ModelCard
from app.schemas.admin import AdminSetting
from app.schemas.chat import ChatRequest
from app.schemas.completions import CompletionRequest
from app.schemas.sampling import SamplingDefaults
from app.settings import ModelEntry, Settings
from tests.generation.test_sampling_defaults import asked
from tests.support.asgi import request
from tests.support.house import scripted_memory, scripted_registry
from tests.support.scripted import ScriptedLoader, says

SHARES = st.none() | st.floats(0.01, 1)
SAMPLED = {
    "temperature": st.none() | st.floats(0, 2),
    "top_p": SHARES,
    "top_k": st.none() | st.integers(0, 100),
    "min_p": SHARES,
    "repetition_penalty": st.none() | st.floats(0.01, 10),
}


def card(entry: ModelEntry | None = None, sampling: SamplingDefaults | None = None, **abilities: Any) -> ModelCard:
    theirs = SamplingDefaults() if sampling is None else sampling
    known = ModelCard(id="m", created=0, owned_by="m", root="m", abilities=Abilities(sampling=theirs, **abilities))
    return known if entry is None else msgspec.structs.replace(known, entry=entry)


def told(group: tuple[AdminSetting, ...]) -> dict[str, Any]:
    return {it.name: (it.value, it.origin) for it in group}


@given(
    st.builds(ModelEntry, **SAMPLED, max_tokens=st.none() | st.integers(1, 99)), st.builds(SamplingDefaults, **SAMPLED)
)
@settings(max_examples=60, deadline=None)
def test_what_is_told_is_what_a_request_that_says_nothing_is_drawn_with(
    entry: ModelEntry, theirs: SamplingDefaults
) -> None:
    found = in_force(card(entry, theirs), Settings())
    for group, kind in ((found.chat, ChatRequest), (found.completion, CompletionRequest)):
        job = asked(kind, entry)
        drawn = sampling_in_force(job, theirs)
        values = told(group)
        assert values["max_tokens"][0] == job.decoding.max_tokens
        for name in SAMPLED:
            value, origin = values[name]
            assert value == getattr(drawn, name)
            written = getattr(entry, name) is not None
            theirs_counts = kind is ChatRequest and getattr(theirs, name) is not None
            assert origin == ("models.toml" if written else "generation_config.json" if theirs_counts else "default")


@pytest.mark.parametrize("value", [-1.0, 0.0, 12.5])
def test_how_long_it_stays_is_the_entrys_or_the_services(value: float) -> None:
    own = told(in_force(card(ModelEntry(keep_alive=value)), Settings(keep_alive=7.0)).model)
    assert own["keep_alive"] == (value, "models.toml")
    services = told(in_force(card(), Settings(keep_alive=value)).model)
    assert services["keep_alive"] == (value, "default" if value == Settings().keep_alive else "service settings")


def test_what_counts_from_a_load_on_is_told_as_it_was_loaded() -> None:
    loaded = msgspec.structs.replace(card(ModelEntry(kv_bits=8, temperature=0.5)), loaded=ModelEntry(kv_bits=4))
    found = in_force(loaded, Settings(prefix_cache=1 << 30))
    assert told(found.model)["kv_bits"] == (4, "models.toml")
    assert told(found.chat)["temperature"] == (0.5, "models.toml")
    assert next(it.words for it in found.model if it.name == "prefix_cache") == "1GiB"


def test_tools_and_thoughts_are_told_as_the_template_and_the_settings_have_them() -> None:
    assert "enable_thinking" not in told(in_force(card(), Settings()).chat)
    able = told(in_force(card(tools=True, thinking=True), Settings()).chat)
    assert (able["tool_prompt"], able["enable_thinking"]) == ((None, "chat template"), (None, "chat template"))
    assert told(in_force(card(), Settings()).chat)["tool_prompt"] == ("generic", "default")
    refused = told(in_force(card(ModelEntry(tool_prompt="refuse"), tools=True), Settings()).chat)
    assert refused["tool_prompt"] == ("refuse", "models.toml")


async def test_a_model_is_asked_for_its_settings_by_id_or_alias(tmp_path: Path) -> None:
    async with scripted_registry(ScriptedLoader(scripted_memory(), script=says("x")), tmp_path) as registry:
        registry.reload({"org/tiny": ModelEntry(aliases=("t",), temperature=0.2)})
        (tmp_path / "models" / "org" / "tiny" / "generation_config.json").write_text(json.dumps({"top_k": 20}))
        app = create_app(Settings(), registry=registry)
        for name in ("t", "org/tiny", "org%2Ftiny"):
            answer = (await request(app, "GET", f"/admin/settings/{name}")).json()
            assert answer["id"] == "org/tiny"
            values = {it["name"]: (it["value"], it["origin"]) for it in answer["chat"]}
            assert values["temperature"] == (0.2, "models.toml")
            assert values["top_k"] == (20, "generation_config.json")
            assert values["top_p"] == (1.0, "default")
        unknown = await request(app, "GET", "/admin/settings/org%2Fnone")
        assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
