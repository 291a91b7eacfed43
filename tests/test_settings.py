import importlib.resources
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.settings import ModelEntry, Settings
from app.settings.fields import setting_fields
from app.settings.load import CONFIG, Effective, FlagValue, load, read_models
from app.settings.problem import SettingsProblem
from app.settings.reference import DOCUMENT, default_toml, document
from app.settings.sizes import format_size, parse_size


def effective(
    tmp_path: Path,
    text: str | None = None,
    environ: dict[str, str] | None = None,
    flags: dict[str, FlagValue] | None = None,
) -> Effective:
    config = None
    if text is not None:
        config = tmp_path / "my.toml"
        config.write_text(text)
    return load(flags or {}, environ or {}, config, here=tmp_path)


def problem(tmp_path: Path, **sources: Any) -> str:
    with pytest.raises(SettingsProblem) as caught:
        effective(tmp_path, **sources)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_the_defaults_of_the_file_are_those_of_the_struct(tmp_path: Path) -> None:
    found = effective(tmp_path).settings
    assert msgspec.structs.replace(found, models={}) == Settings()


def test_the_carried_models_file_knows_the_default_model_by_a_short_name(tmp_path: Path) -> None:
    found = effective(tmp_path).settings
    assert "smollm2" in found.models[found.default_model].aliases


def test_default_toml_and_the_reference_are_what_the_struct_says() -> None:
    assert (CONFIG / "default.toml").read_text() == default_toml()
    assert DOCUMENT.read_text() == document(DOCUMENT.read_text())


def test_the_carried_files_are_found_as_resources_too() -> None:
    carried = importlib.resources.files("config").joinpath("default.toml").read_text()
    assert tomllib.loads(carried)["port"] == 8000


def test_the_later_source_wins_and_is_remembered(tmp_path: Path) -> None:
    text = "port = 1\nqueue_limit = 1\nhost = '0.0.0.1'\n"
    environ = {"SWITCHYARD_PORT": "2", "SWITCHYARD_QUEUE_LIMIT": "2", "PATH": "/bin"}
    found = effective(tmp_path, text, environ, {"port": "3"})
    assert (found.settings.port, found.settings.queue_limit, found.settings.host) == (3, 2, "0.0.0.1")
    assert found.origins["port"] == "flag --port"
    assert found.origins["queue_limit"] == "environment SWITCHYARD_QUEUE_LIMIT"
    assert found.origins["host"] == str(tmp_path / "my.toml")
    assert found.origins["offline"] == str(CONFIG / "default.toml")
    assert set(found.origins) == set(Settings.__struct_fields__)


def test_the_environment_may_name_the_file_and_the_flag_wins_over_it(tmp_path: Path) -> None:
    (tmp_path / "env.toml").write_text("port = 5")
    (tmp_path / "flag.toml").write_text("port = 6")
    environ = {"SWITCHYARD_CONFIG": "env.toml"}
    assert load({}, environ, here=tmp_path).settings.port == 5
    assert load({}, environ, tmp_path / "flag.toml", here=tmp_path).settings.port == 6


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("12GB", 12 * 10**9),
        ("512MiB", 512 << 20),
        ("1.5 gib", 3 << 29),
        ("7kb", 7000),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int, tmp_path: Path) -> None:
    assert parse_size(text) == size
    assert effective(tmp_path, f'memory_budget = "{text}"').settings.memory_budget == size
    assert effective(tmp_path, environ={"SWITCHYARD_MEMORY_BUDGET": text}).settings.memory_budget == size


@pytest.mark.parametrize("text", ["", "GB", "12 parsecs", "-1", "1e9", "12G", "1.2.3MB", "٣GB"])
def test_other_texts_are_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_size(text)


@given(st.integers(0, 1 << 50))
def test_a_size_written_is_the_size_read(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_a_budget_may_be_left_to_the_machine(tmp_path: Path) -> None:
    assert effective(tmp_path, environ={"SWITCHYARD_MEMORY_BUDGET": "auto"}).settings.memory_budget is None
    assert effective(tmp_path, "memory_budget = 5000", flags={"memory_budget": "auto"}).settings.memory_budget is None


@pytest.mark.parametrize(("text", "value"), [("1", True), ("0", False), ("true", True), ("FALSE", False)])
def test_switches_in_the_environment(tmp_path: Path, text: str, value: bool) -> None:
    assert effective(tmp_path, "offline = true", {"SWITCHYARD_OFFLINE": text}).settings.offline is value


def test_lists_are_separated_by_commas_and_replace_what_was_there(tmp_path: Path) -> None:
    found = effective(tmp_path, 'api_keys = ["old"]', {"SWITCHYARD_API_KEYS": "a, b,,c"})
    assert found.settings.api_keys == ("a", "b", "c")
    assert effective(tmp_path, 'api_keys = ["old"]', {"SWITCHYARD_API_KEYS": ""}).settings.api_keys == ()


def test_directories_count_from_the_place_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("beside", "here", "home/mine"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert effective(tmp_path, 'model_roots = ["beside", "~/mine"]').settings.model_roots == (
        tmp_path / "beside",
        tmp_path / "home" / "mine",
    )
    assert load({"model_roots": ("here",)}, {}, here=tmp_path).settings.model_roots == (tmp_path / "here",)


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ({"text": "prot = 1"}, ["my.toml", "prot", "did you mean port?"]),
        ({"text": "colour = 1"}, ["my.toml", "colour", "allowed are allow_models, allowed_hosts, api_keys"]),
        ({"text": "port = 70000"}, ["my.toml", "port", "70000", "from 0 up to 65535"]),
        ({"text": "port = true"}, ["my.toml", "port", "true"]),
        ({"text": 'port = "8000"'}, ["my.toml", "port", "whole number"]),
        ({"text": "port = "}, ["my.toml", "TOML", "at end of document"]),
        ({"text": "keep_alive = nan"}, ["my.toml", "keep_alive", "a number"]),
        ({"text": "memory_fraction = 0.0"}, ["my.toml", "memory_fraction", "above 0"]),
        ({"text": 'memory_budget = "12 parsecs"'}, ["memory_budget", "12 parsecs", "12GB, 512MiB"]),
        ({"text": "memory_budget = -5"}, ["memory_budget", "-5", "12GB, 512MiB"]),
        ({"text": 'response_store = "auto"'}, ["response_store", "auto", "12GB, 512MiB"]),
        ({"text": 'log_level = "loud"'}, ["log_level", "loud", "debug, info, warning, error"]),
        ({"text": 'model_roots = ["gone"]'}, ["model_roots", "gone", "no directory"]),
        ({"text": "[models.x]"}, ["my.toml", "models.toml beside"]),
        ({"environ": {"SWITCHYARD_PROT": "1"}}, ["environment", "SWITCHYARD_PROT", "SWITCHYARD_PORT"]),
        ({"environ": {"SWITCHYARD_PORT": "tcp://10.0.0.1"}}, ["environment", "SWITCHYARD_PORT", "tcp://10.0.0.1"]),
        ({"environ": {"SWITCHYARD_OFFLINE": "maybe"}}, ["SWITCHYARD_OFFLINE", "maybe", "true or false"]),
        ({"flags": {"queue_limit": "0"}}, ["--queue-limit", "0", "from 1"]),
        ({"flags": {"model_roots": ("gone",)}}, ["--model-root", "gone"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, sources: dict[str, Any], said: list[str]) -> None:
    line = problem(tmp_path, **sources)
    for words in said:
        assert words in line


def test_a_key_is_never_shown(tmp_path: Path) -> None:
    assert "hunter2" not in problem(tmp_path, text='api_keys = "hunter2"')


def test_a_missing_or_unreadable_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsProblem, match="no such file"):
        load({}, {}, tmp_path / "gone.toml", here=tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'host = "\xe9"')
    with pytest.raises(SettingsProblem, match="UTF-8"):
        load({}, {}, tmp_path / "latin.toml", here=tmp_path)
    with pytest.raises(SettingsProblem, match="cannot be read"):
        load({}, {}, tmp_path, here=tmp_path)


def test_models_beside_the_file_take_the_place_of_the_carried_ones(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text('[models."org/name"]\naliases = ["n"]\npin = true\nkeep_alive = 5\n')
    found = effective(tmp_path, "port = 1")
    assert found.settings.models == {"org/name": ModelEntry(aliases=("n",), pin=True, keep_alive=5.0)}
    assert found.origins["models"] == str(tmp_path / "models.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[models."a/b"]\nalias = ["x"]', ["a/b", "alias", "did you mean aliases?"]),
        ('[models."a/b"]\nquantize = 7', ["a/b", "quantize", "7", "one of 2, 3, 4, 5, 6, 8"]),
        ('[models."a/b"]\ntop_p = 1.5', ["a/b", "top_p", "up to 1"]),
        ('[models."a/b"]\nranks = 1', ["a/b", "ranks", "from 2"]),
        ('[models."a/b"]\nranks = 2\npooling = "cls"', ["a/b", "pooling does not go with ranks"]),
        ('[models."a/b"]\nranks = 2\ndraft_model = "c"', ["a/b", "draft_model does not go with ranks"]),
        ('[models."a/b"]\nhosts = "none.json"', ["a/b", "hosts", "none.json", "cannot be read"]),
        ('[models]\n"a/b" = 3', ["a/b", "must be a table"]),
        ("models = 3", ['models."org/name"']),
        ("[model.x]", ["model", "did you mean models?"]),
    ],
)
def test_what_is_wrong_with_a_model_is_said_in_one_line(tmp_path: Path, text: str, said: list[str]) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(SettingsProblem) as caught:
        read_models(path)
    for words in [str(path), *said]:
        assert words in str(caught.value)


def test_settings_that_mean_something_else_now_are_told_where_somebody_set_them(tmp_path: Path) -> None:
    file = tmp_path / "old.toml"
    file.write_text("watchdog_timeout = 100.0\nport = 9000\n")
    told = load({}, {"SWITCHYARD_PREFIX_CACHE": "1GB"}, file, here=tmp_path).changed
    assert len(told) == 2
    assert any(str(file) in line and "no longer the service" in line for line in told)
    assert any("SWITCHYARD_PREFIX_CACHE" in line for line in told)
    assert load({}, {}, here=tmp_path).changed == []


FIRST = """
host = "127.0.0.1"
port = 8000
memory_budget = "auto"
memory_fraction = 0.75
model_roots = []
default_model = "HuggingFaceTB/SmolLM2-135M-Instruct"
offline = false
allow_models = ["*"]
keep_alive = -1.0
queue_limit = 256
queue_timeout = 300.0
min_residency = 2.0
max_choices = 16
max_batch_rows = 64
prefill_slice = 0
prefix_cache = "1GiB"
max_connections = 1024
header_timeout = 20.0
body_timeout = 60.0
idle_timeout = 75.0
stall_timeout = 120.0
request_timeout = 3600.0
watchdog_timeout = 300.0
max_body_bytes = "10MiB"
stop_grace = 10.0
api_keys = []
key_file = ""
open_to_network = false
allowed_hosts = []
cors_origins = []
tls_certificate = ""
tls_key = ""
docs = true
tracing = false
log_level = "info"
log_format = "console"
"""
"""The default.toml of version 0.1, which people have copied."""


def test_a_file_of_the_first_version_is_read_as_it_is_and_the_new_settings_are_listed(tmp_path: Path) -> None:
    found = effective(tmp_path, FIRST).settings
    assert (found.memory_fraction, found.stop_grace, found.allow_models) == (0.75, 10.0, ("*",))
    new = set(setting_fields()) - set(tomllib.loads(FIRST))
    page = (CONFIG.parent / "docs" / "install.md").read_text()
    listed = page.partition("New settings: ")[2].partition("(")[0]
    assert {word.strip(" `\n") for word in listed.split(",")} == new


@given(st.text(alphabet="0123456789abcdefgABC ", max_size=10))
def test_a_mark_of_responses_is_eight_digits_or_left_to_chance(
    tmp_path_factory: pytest.TempPathFactory, mark: str
) -> None:
    place = tmp_path_factory.getbasetemp()
    right = len(mark) == 8 and set(mark) <= set("0123456789abcdef")
    if right or mark.strip() == "auto":
        assert load({"response_mark": mark}, {}, here=place).settings.response_mark == (mark if right else None)
    elif len(mark.strip()) != 8 or not set(mark.strip()) <= set("0123456789abcdef"):
        with pytest.raises(SettingsProblem, match="eight digits"):
            load({"response_mark": mark}, {}, here=place)
