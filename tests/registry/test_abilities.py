"""What a listing says of a model that is not loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.registry.abilities import EMBEDDED, Abilities, AbilityReader, read
from app.settings import ModelEntry
from tests.registry.models import CONFIG, write_adapter, write_model
from tests.registry.test_registry import KV, opened

QWEN = "{%- if tools %}<tools>{% endif %}{%- if enable_thinking is false %}<think>\n\n</think>{% endif %}"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["chat_template", "template", "a"]), inner)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 131072}}, 131072),
        ({"max_position_embeddings": "many", "text_config": None}, None),
        ({"max_position_embeddings": True}, None),
        ({}, None),
    ],
)
def test_the_context_is_what_config_json_says(tmp_path: Path, config: dict[str, Any], length: int | None) -> None:
    assert read(write_model(tmp_path / "m", config=config), "m").context_length == length


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("chat_template.jinja", QWEN),
        ("chat_template.json", json.dumps({"chat_template": QWEN})),
        ("tokenizer_config.json", json.dumps({"chat_template": QWEN})),
        (
            "tokenizer_config.json",
            json.dumps(
                {"chat_template": [{"name": "default", "template": "x"}, {"name": "tool_use", "template": QWEN}]}
            ),
        ),
        ("additional_chat_templates/tool_use.jinja", QWEN),
    ],
)
def test_tools_and_thoughts_are_what_a_template_shows_wherever_it_stands(
    tmp_path: Path, name: str, contents: str
) -> None:
    path = write_model(tmp_path / "m")
    assert read(path, "m") == Abilities()
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text(contents)
    assert read(path, "m") == Abilities(None, chat=True, tools=True, thinking=True)


def test_a_plain_template_is_a_chat_without_tools_or_thoughts(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m")
    (path / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }} I think.{% endfor %}")
    assert read(path, "m") == Abilities(None, chat=True)


@given(config=JSON, template=JSON)
def test_whatever_stands_in_the_files_something_is_said(
    tmp_path_factory: pytest.TempPathFactory,
    config: list[str | bool] | dict[str, int] | None,
    template: list[int | dict[str, Any] | None] | dict[str, dict[str, Any]] | None,
) -> None:
    path = tmp_path_factory.mktemp("m")
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer_config.json").write_text(json.dumps(template))
    (path / "chat_template.json").write_bytes(b"\xff{")
    assert read(path, "m").context_length is None


def test_files_are_read_again_only_when_the_configuration_has_changed(tmp_path: Path) -> None:
    path, reader = write_model(tmp_path / "m", config={"n_ctx": 7}), AbilityReader()
    assert reader.all({"m": path})["m"].context_length == 7
    (path / "chat_template.jinja").write_text(QWEN)
    assert not reader.all({"m": path})["m"].chat
    (path / "config.json").write_text('{"n_ctx": 8}')
    assert reader.all({"m": path})["m"] == Abilities(8, chat=True, tools=True, thinking=True)
    assert reader.all({"m": tmp_path / "nothing"})["m"] == Abilities()


async def test_the_registry_tells_it_of_models_adapters_and_aliases(tmp_path: Path) -> None:
    write_model(tmp_path / "root" / "qwen", config=CONFIG | {"max_position_embeddings": 16384})
    (tmp_path / "root" / "qwen" / "chat_template.jinja").write_text(QWEN)
    write_adapter(tmp_path / "root" / "fine")
    models = {"mine": ModelEntry(), "qwen:fine": ModelEntry(), "qwen": ModelEntry(aliases=("q",))}
    async with opened(tmp_path, models=models) as (registry, _):
        cards = {card.id: card for card in await registry.list()}
        knows = Abilities(16384, chat=True, tools=True, thinking=True)
        assert cards["qwen"].abilities == cards["q"].abilities == cards["qwen:fine"].abilities == knows
        assert (cards["qwen"].parent, cards["q"].root, cards["qwen:fine"].parent) == (None, "qwen", "qwen")
        assert cards["smollm2"].abilities == EMBEDDED
        await registry.load("tiny-a")
        assert (await registry.get("tiny-a")).abilities.context_length == 4096  # the engine's own


async def test_no_longer_a_context_is_told_than_there_is_memory_for(tmp_path: Path) -> None:
    config = CONFIG | {"max_position_embeddings": 1 << 20}
    write_model(tmp_path / "root" / "long", config=config)
    write_model(tmp_path / "root" / "windowed", config=config | {"sliding_window": 512})
    write_model(tmp_path / "root" / "huge", config=config, weights=12_000_000)
    write_model(tmp_path / "root" / "short", config=CONFIG | {"max_position_embeddings": 512})
    async with opened(tmp_path) as (registry, loader):
        loader.sizes |= {"long": 400, "windowed": 400}
        cards = {card.id: card.abilities for card in await registry.list()}
        room = registry.memory().limit - 400
        told = cards["long"].context_length
        assert cards["long"].fitted
        assert KV * (1.25 * told + 384) <= room < KV * (1.25 * (told + 2) + 384)
        assert [cards[it].context_length for it in ("windowed", "huge", "short")] == [1 << 20, 1 << 20, 512]

        loader.context_length, loader.kv_bytes_per_token = 1 << 20, 4096
        await registry.load("windowed")
        told = (await registry.get("windowed")).abilities.context_length
        assert 4096 * told <= room < 4096 * (told + 1)
        async with registry.lease("windowed") as lease:
            assert told is not None
            await lease.admit(lease.engine.law.nbytes(told))


async def test_a_generic_prompt_gives_tools_to_a_model_that_chats(tmp_path: Path) -> None:
    path = write_model(tmp_path / "root" / "plain")
    (path / "chat_template.jinja").write_text("{{ messages }}")
    async with opened(tmp_path, models={"plain": ModelEntry(tool_prompt="generic")}) as (registry, _):
        assert (await registry.get("plain")).abilities == Abilities(None, chat=True, tools=True)


@pytest.mark.parametrize(
    ("config", "modules", "name", "kind"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, (), "org/chat", "text"),
        ({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}, (), "org/Qwen3-0.6B", "text"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, (), "org/bert", "embedding"),
        ({"model_type": "qwen3", "architectures": ["Qwen3Model"]}, ("Transformer", "Pooling"), "org/x", "embedding"),
        ({"model_type": "xlm-roberta", "architectures": ["XLMRobertaForSequenceClassification"]}, (), "x", "rerank"),
        ({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}, (), "org/Qwen3-Reranker-4B-mlx", "rerank"),
        ({"model_type": "qwen3"}, ("Transformer", "LogitScore"), "org/x", "rerank"),
    ],
)
def test_what_a_model_is_for_is_told_by_its_files(
    tmp_path: Path, config: dict[str, Any], modules: tuple[str, ...], name: str, kind: str
) -> None:
    path = write_model(tmp_path / "m", config=config)
    if modules:
        told = [{"idx": at, "name": str(at), "path": "", "type": f"a.b.{it}"} for at, it in enumerate(modules)]
        (path / "modules.json").write_text(json.dumps(told))
    assert read(path, name).kind == kind


@given(st.binary(max_size=40) | JSON.map(lambda it: json.dumps(it).encode()))
def test_files_that_say_nothing_make_a_text_model(tmp_path_factory: pytest.TempPathFactory, contents: bytes) -> None:
    path = write_model(tmp_path_factory.mktemp("any") / "m")
    (path / "modules.json").write_bytes(contents)
    assert read(path, "m").kind == "text"
