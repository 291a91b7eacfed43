import asyncio
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ModelNotFound
from app.registry import scan as catalog_scan
from app.registry.catalog import Catalog
from app.registry.scan import ModelDirectory, scan
from app.registry.sources import Embedded, HubRepo, LocalDirectory, Source
from app.settings import SMOLLM2, ModelEntry, Settings
from tests.registry.models import write_model
from tests.support.virtual_time import run

HOSTILE = (
    *("../outside", "a/../../outside", "/etc/passwd", "//etc/passwd", "~/model", "C:\\model", "a\\b", ".", "..", ""),
    *(
        "http://127.0.0.1/x",
        "https://huggingface.co/org/name",
        "file:///etc",
        "org/name/extra",
        "name",
        "org/",
        "/name",
    ),
    *(
        "org/na me",
        "org/name@",
        "org/name@../x",
        "org/name@a//b",
        "org/name@-x",
        "org/na\x00me",
        "org/n--n",
        "org/x.git",
    ),
    *("org/" + "n" * 500, "org/name@" + "r" * 500, "org/naïve", "org/name\n", "%2e%2e/x", "org/.hidden", "-org/name"),
)


Form = Literal["NFC", "NFD"]


def found(catalog: Catalog, name: str | None) -> Source:
    return run(catalog.find(name))


def test_no_name_is_the_default_model() -> None:
    assert found(Catalog(Settings()), None) == Embedded(id=SMOLLM2)
    assert found(Catalog(Settings(default_model="org/name")), None) == HubRepo(id="org/name", repo="org/name")


def test_the_embedded_model_has_an_alias() -> None:
    catalog = Catalog(Settings(allow_models=()))
    assert found(catalog, "smollm2") == found(catalog, SMOLLM2) == Embedded(id=SMOLLM2)
    assert catalog.aliases(SMOLLM2) == ("smollm2",)


def test_aliases_lead_to_configured_models() -> None:
    entry = ModelEntry(aliases=("big", "gpt-4o"), revision="v2", temperature=0.0)
    catalog = Catalog(Settings(models={"org/name": entry}))
    for name in ("big", "gpt-4o", "org/name"):
        assert found(catalog, name) == HubRepo(id="org/name", repo="org/name", revision="v2", entry=entry)
        assert catalog.entry(name) is entry
    assert catalog.entry("org/name@v3") is entry
    assert catalog.entry("unknown") == ModelEntry()


def test_a_pattern_is_an_alias_of_every_name_that_fits_it(tmp_path: Path) -> None:
    models = {
        "org/small": ModelEntry(aliases=("claude-haiku-*", "gpt-?-mini")),
        "org/large": ModelEntry(aliases=("claude-*", "gpt-*", "exact")),
        "org/rest": ModelEntry(aliases=("*", "old/*")),
    }
    write_model(tmp_path / "gpt-neo")
    catalog = Catalog(Settings(models=models, model_roots=(tmp_path,)))
    expected = {
        "claude-opus-9": "org/large",
        "claude-haiku-9": "org/small",
        "gpt-5-mini": "org/small",
        "gpt-55-mini": "org/large",
        "exact": "org/large",
        "whatever:8b": "org/rest",
        "old/model": "org/rest",
        "org/other": "org/other",
        "org/small@v2": "org/small@v2",
        "gpt-neo": "gpt-neo",
        "smollm2": SMOLLM2,
        SMOLLM2: SMOLLM2,
    }
    for name, id_ in expected.items():
        assert (catalog.name(name), found(catalog, name).id) == (id_, id_), name
    assert catalog.entry("claude-opus-9") is models["org/large"]
    assert catalog.entry("gpt-neo") == ModelEntry()
    assert catalog.aliases("org/small") == ("claude-haiku-*", "gpt-?-mini")
    assert catalog.name(None) == SMOLLM2


def test_the_default_model_is_no_patterns(tmp_path: Path) -> None:
    write_model(tmp_path / "gpt-neo")
    models = {"org/large": ModelEntry(aliases=("*",))}
    catalog = Catalog(Settings(models=models, default_model="gpt-neo", model_roots=(tmp_path,)))
    assert found(catalog, None).id == found(catalog, "gpt-neo").id == "gpt-neo"
    catalog.reload(Settings(models={}, default_model="gpt-neo", model_roots=(tmp_path,)))
    assert catalog.name("gpt-4") == "gpt-4"


def test_hub_names_carry_revisions() -> None:
    source = found(Catalog(Settings()), "org/name@refs/pr/1")
    assert source == HubRepo(id="org/name@refs/pr/1", repo="org/name", revision="refs/pr/1")


def test_only_allowed_repos_exist() -> None:
    catalog = Catalog(Settings(allow_models=("mlx-community/*", "org/one")))
    assert isinstance(found(catalog, "mlx-community/any"), HubRepo)
    assert isinstance(found(catalog, "org/one@main"), HubRepo)
    for name in ("org/two", "org/one-more", "mlx-communityx/any"):
        with pytest.raises(ModelNotFound):
            found(catalog, name)


def test_what_the_settings_name_is_allowed() -> None:
    settings = Settings(
        allow_models=(), default_model="org/default", models={"org/pinned": ModelEntry(aliases=("it",))}
    )
    catalog = Catalog(settings)
    assert found(catalog, None).id == "org/default"
    assert found(catalog, "it").id == "org/pinned"
    assert found(catalog, "org/pinned@v2").revision == "v2"
    with pytest.raises(ModelNotFound):
        found(catalog, "org/other")
    catalog.reload(Settings(allow_models=(), default_model="org/default"))
    with pytest.raises(ModelNotFound):
        found(catalog, "org/pinned")


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_name_is_no_model(name: str, tmp_path: Path) -> None:
    write_model(tmp_path / "outside")
    (tmp_path / "root").mkdir()
    catalog = Catalog(Settings(model_roots=(tmp_path / "root",)))
    with pytest.raises(ModelNotFound) as refused:
        found(catalog, name)
    assert str(tmp_path) not in refused.value.message


def test_directories_below_roots_are_models(tmp_path: Path) -> None:
    write_model(tmp_path / "one" / "tiny-a")
    write_model(tmp_path / "one" / "org" / "name")
    write_model(tmp_path / "two" / "tiny-a")
    catalog = Catalog(Settings(model_roots=(tmp_path / "one", tmp_path / "two", tmp_path / "missing")))
    tiny = found(catalog, "tiny-a")
    assert isinstance(tiny, LocalDirectory)
    assert tiny.path == tmp_path / "one" / "tiny-a", "the first root wins"
    assert isinstance(found(catalog, "org/name"), LocalDirectory), "a directory goes before a repo of the same name"
    assert [source.id for source in run(catalog.sources())] == [SMOLLM2, "org/name", "tiny-a"]


def test_all_who_ask_first_and_at_once_find_it(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny-a")
    looks = 0

    def slowly(settings: Settings) -> dict[str, ModelDirectory]:
        nonlocal looks
        looks += 1
        time.sleep(0.05)
        return {"tiny-a": scan(tmp_path)["tiny-a"]}

    async def ask() -> Sequence[Source]:
        catalog = Catalog(Settings(model_roots=(tmp_path,), offline=True), find=slowly)
        return await asyncio.gather(*(catalog.find("tiny-a") for _ in range(8)))

    assert {source.id for source in asyncio.run(ask())} == {"tiny-a"}
    assert looks == 1


async def as_on_disk(repo: str) -> str:
    return {"mlx-community/name": "mlx-community/Name", "org/held": "ORG/held"}.get(repo.casefold(), repo)


@given(data=st.data())
def test_a_hub_name_in_any_case_is_the_one_that_is_here_or_in_the_settings(data: st.DataObject) -> None:
    entry = ModelEntry(temperature=0.5, revision="v1")
    catalog = Catalog(
        Settings(models={"org/Held": entry, "Org/Other": entry}, allow_models=("mlx-community/*",)), spelled=as_on_disk
    )
    for id_, revision in (("mlx-community/Name", None), ("org/Held", "v1"), ("Org/Other", "v1")):
        cases = data.draw(st.lists(st.booleans(), min_size=len(id_), max_size=len(id_)))
        name = "".join(sign.upper() if up else sign.lower() for sign, up in zip(id_, cases, strict=True))
        source = found(catalog, name)
        assert (source.id, source.revision) == (id_, revision)
        assert source.entry == catalog.entry(name) == (entry if revision else ModelEntry())
        assert found(catalog, f"{name}@v2").id == f"{id_}@v2"


def test_the_embedded_model_is_found_in_any_case() -> None:
    assert found(Catalog(Settings(allow_models=())), SMOLLM2.upper()) == Embedded(id=SMOLLM2)


@pytest.mark.parametrize("name", ["modèle", "Ångström/ñ", "모델"])
@pytest.mark.parametrize(("disk", "asked"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
def test_letters_with_accents_are_the_same_however_they_are_composed(
    tmp_path: Path, name: str, disk: Form, asked: Form
) -> None:
    path = tmp_path / unicodedata.normalize(disk, name)
    write_model(path)
    catalog = Catalog(
        Settings(model_roots=(tmp_path,), models={unicodedata.normalize(asked, name): ModelEntry(aliases=("it",))})
    )
    source = found(catalog, unicodedata.normalize(asked, name))
    assert (source.id, source.path) == (unicodedata.normalize("NFC", name), path)
    assert found(catalog, "it") == source


def test_what_is_put_there_later_is_found(tmp_path: Path) -> None:
    catalog = Catalog(Settings(model_roots=(tmp_path,), offline=True))
    with pytest.raises(ModelNotFound):
        found(catalog, "late")
    write_model(tmp_path / "late")
    catalog._scanned_at = None
    assert isinstance(found(catalog, "late"), LocalDirectory)


def test_scan_takes_models_only(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_model(tmp_path / "model" / "inner")
    write_model(tmp_path / ".hidden" / "model")
    write_model(tmp_path / "deep" / "2" / "3" / "4" / "5" / "six")
    write_model(tmp_path / "deep" / "2" / "3" / "4" / "5" / "6" / "seven")
    (tmp_path / "no-weights").mkdir()
    (tmp_path / "no-weights" / "config.json").write_text("{}")
    (tmp_path / "linked").symlink_to(tmp_path / "deep" / "2" / "3" / "4" / "5")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert set(scan(tmp_path)) == {"model", "deep/2/3/4/5/six", "linked/six", "linked/6/seven"}


def test_every_link_to_a_model_is_a_name_of_it(tmp_path: Path) -> None:
    write_model(tmp_path / "elsewhere" / "model")
    root = tmp_path / "root"
    root.mkdir()
    for name in ("one", "two"):
        (root / name).symlink_to(tmp_path / "elsewhere" / "model")
        (root / f"org-{name}").symlink_to(tmp_path / "elsewhere")
    assert set(scan(root)) == {"one", "two", "org-one/model", "org-two/model"}


@pytest.mark.parametrize("target", ["loop", "other", ".", "..", "missing"])
def test_a_link_that_leads_nowhere_or_round_hides_nothing_but_itself(tmp_path: Path, target: str) -> None:
    root = tmp_path / "root"
    write_model(root / "model")
    (root / "loop").symlink_to(target)
    (root / "other").symlink_to("loop")
    (root / "model" / "config.link").symlink_to("config.link")
    assert set(scan(root)) == {"model"}


def test_many_links_to_one_another_are_followed_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    look = catalog_scan._look
    monkeypatch.setattr(catalog_scan, "_look", lambda path, config: looked.append(path) or look(path, config))
    for one in range(12):
        (tmp_path / str(one)).mkdir()
        for other in range(12):
            (tmp_path / str(one) / f"to-{other}").symlink_to(tmp_path / str(other))
    write_model(tmp_path / "0" / "model")
    assert {"0/model", "1/to-0/model"} <= set(scan(tmp_path))
    assert len(looked) < 1200, "of the millions of ways that lead round"


@pytest.mark.parametrize("weights", ["weights-q4.safetensors", "adapters.safetensors", "model.safetensors.index.json"])
def test_what_would_not_be_loaded_is_not_listed(tmp_path: Path, weights: str) -> None:
    (write_model(tmp_path / "model") / "model.safetensors").rename(tmp_path / "model" / weights)
    assert scan(tmp_path) == {}


def test_a_directory_with_a_colon_is_a_model_with_an_entry_of_its_own(tmp_path: Path) -> None:
    write_model(tmp_path / "base")
    for name in ("base:4bit", "other:4bit"):
        write_model(tmp_path / name)
    own = ModelEntry(temperature=0.5)
    models = {"base": ModelEntry(pin=True, temperature=0.1), "other:4bit": own}
    catalog = Catalog(Settings(model_roots=(tmp_path,), models=models))
    assert {source.id for source in run(catalog.sources())} >= {"base", "base:4bit", "other:4bit"}
    for name, entry in (("base:4bit", ModelEntry()), ("other:4bit", own)):
        source = found(catalog, name)
        assert isinstance(source, LocalDirectory)
        assert (source.id, source.path, source.entry) == (name, tmp_path / name, entry)
