"""The recipes of docs/clients/embeddings.md, run as they stand on the page, against all-MiniLM-L6-v2 itself."""

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.contract.test_recipes import ADDRESS, interpreter, output, recipe
from tests.support.encoders import make_bert
from tests.support.minilm import minilm
from tests.support.process import service

NAME = "sentence-transformers/all-MiniLM-L6-v2"
RERANKER = "BAAI/bge-reranker-v2-m3"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root, config = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("config")
    (root / NAME).parent.mkdir()
    (root / NAME).symlink_to(minilm(), target_is_directory=True)
    make_bert(root / RERANKER, family="roberta", classifier=True)  # its shape, not its weights
    (config / "settings.toml").write_text("")
    (config / "models.toml").write_text(recipe("embeddings", "toml", ADDRESS))
    with service("--offline", "--model-root", str(root), "--config", str(config / "settings.toml")) as running:
        yield running.url


def test_openai(url: str) -> None:
    assert output(interpreter("openai"), "-c", recipe("embeddings", "python", url)).split() == ["0.67", "0.10"]


def test_langchain(url: str) -> None:
    program = recipe("embeddings", "python", url, 1)
    assert output(interpreter("langchain_openai"), "-c", program).split() == ["384"]


def test_llamaindex(url: str) -> None:
    program = recipe("embeddings", "python", url, 2)
    assert output(interpreter("llama_index.embeddings.openai_like"), "-c", program).split() == ["384"]


def test_llm(url: str, tmp_path: Path) -> None:
    command = recipe("embeddings", "bash", url).replace("llm embed", f"{interpreter('llm')} -m llm embed")
    told = output("bash", stdin=command, LLM_USER_PATH=str(tmp_path))
    assert told.startswith("[")
    assert told.count(",") == 383


def test_commands(url: str) -> None:
    ours = f"env -u SWITCHYARD_CLIENTS {sys.executable} -m app"  # no setting of the service
    command = recipe("embeddings", "bash", url, 1).replace("switchyard", ours)
    head, dog, _, train = output("bash", stdin=command, SWITCHYARD_URL=url).splitlines()
    assert head.split() == ["1", "2", "3", "TEXT"]
    assert float(dog.split()[2]) > float(dog.split()[3])
    assert train.endswith("a train")


def test_curl(url: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    assert '"relevance_score"' in output("bash", stdin=recipe("embeddings", "bash", url, 2))


def test_what_nobody_waits_for_any_more_is_not_computed(url: str) -> None:
    many = {"model": NAME, "input": ["word " * 120] * 1500}
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{url}/v1/embeddings", json=many, timeout=2)
    (model,) = [it for it in httpx2.get(f"{url}/admin/models").json()["data"] if it["id"] == NAME]
    process = psutil.Process(model["pid"])
    deadline, spent = time.monotonic() + 30, 1.0
    while spent > 0.2 and time.monotonic() < deadline:
        before = sum(process.cpu_times()[:2])
        time.sleep(1)
        spent = sum(process.cpu_times()[:2]) - before
    assert spent <= 0.2
    assert httpx2.post(f"{url}/v1/embeddings", json={"model": NAME, "input": "a"}).status_code == 200
