"""The recipes of docs/clients/embeddings.md, run as they stand on the page, against all-MiniLM-L6-v2 itself."""

import shutil
import sys

import pytest

from tests.contract.test_recipes import ADDRESS, interpreter, output, recipe
from tests.support.encoders import make_bert
from tests.support.minilm import minilm
from tests.support.process import service

NAME = "sentence-transformers/all-MiniLM-L6-v2"
RERANKER = "BAAI/bge-reranker-v2-m3"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    root, config = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("config")
    (root / NAME).parent.mkdir()
    (root / NAME).symlink_to(minilm(), target_is_directory=True)
    make_bert(root / RERANKER, family="roberta", classifier=True)  # its shape, not its weights
    (config / "settings.toml").write_text("")
    (config / "models.toml").write_text(recipe("embeddings", "toml", ADDRESS))
    with service("--offline", "--model-root", str(root), "--config", str(config / "settings.toml")) as running:
        yield running.url


def test_openai(url):
    assert output(interpreter("openai"), "-c", recipe("embeddings", "python", url)).split() == ["0.67", "0.10"]


def test_langchain(url):
    program = recipe("embeddings", "python", url, 1)
    assert output(interpreter("langchain_openai"), "-c", program).split() == ["384"]


def test_llamaindex(url):
    program = recipe("embeddings", "python", url, 2)
    assert output(interpreter("llama_index.embeddings.openai_like"), "-c", program).split() == ["384"]


def test_llm(url, tmp_path):
    command = recipe("embeddings", "bash", url).replace("llm embed", f"{interpreter('llm')} -m llm embed")
    told = output("bash", stdin=command, LLM_USER_PATH=str(tmp_path))
    assert told.startswith("[")
    assert told.count(",") == 383


def test_commands(url):
    ours = f"env -u SWITCHYARD_CLIENTS {sys.executable} -m app"  # no setting of the service
    command = recipe("embeddings", "bash", url, 1).replace("switchyard", ours)
    head, dog, _, train = output("bash", stdin=command, SWITCHYARD_URL=url).splitlines()
    assert head.split() == ["1", "2", "3", "TEXT"]
    assert float(dog.split()[2]) > float(dog.split()[3])
    assert train.endswith("a train")


def test_curl(url):
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    assert '"relevance_score"' in output("bash", stdin=recipe("embeddings", "bash", url, 2))
