"""The servers that the contract is checked against: the same tests for each engine."""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import openai
import pytest
from litestar import Litestar
from msgspec import Struct

from app.engine.base import Sequence
from app.main import create_app
from app.settings import Settings
from tests.support.house import scripted_memory, scripted_registry
from tests.support.live import live
from tests.support.scripted import ScriptedLoader, echoes, says
from tests.support.tiny import make_tiny

SAYS = "Hello, wörld € 你好."


class Server(Struct, frozen=True):
    """A live service and the model to ask; ``says`` is its answer to everything, where that is known."""

    url: str
    model: str
    says: str | None

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"


@asynccontextmanager
async def scripted_app(root: Path) -> AsyncIterator[Litestar]:
    """Every model says ``SAYS``, and its prompt again where that begins with "echo:"."""

    def script(sequence: Sequence, row: int) -> Iterable[int]:
        if bytes(sequence.prompt[1:6]) == b"echo:":
            return echoes(sequence, row)
        return says(SAYS)(sequence, row)

    async with scripted_registry(ScriptedLoader(scripted_memory(), script=script), root) as registry:
        yield create_app(Settings(), registry=registry)


@asynccontextmanager
async def mlx_app(root: Path) -> AsyncIterator[Litestar]:
    """The service as it is started by ``serve``, with the models below ``root`` and the embedded one."""
    yield create_app(Settings(model_roots=(root,), memory_budget=4 << 30, offline=True))


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the MLX engine; ``tiny-a`` and ``tiny-b`` have random weights, ``coder`` fills in the middle."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("tiny-a", "tiny-b")):
        make_tiny(root / name, seed=seed)
    make_tiny(root / "coder", seed=2, specials=("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"))
    with live(lambda: mlx_app(root)) as url:
        yield Server(url, "tiny-a", None)


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose engine says what it is told."""
    root = tmp_path_factory.mktemp("scripted")
    with live(lambda: scripted_app(root)) as url:
        yield Server(url, "org/tiny", SAYS)


@pytest.fixture(scope="session", params=["scripted", "real"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of both servers."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=30) as made:
        yield made


@pytest.fixture
async def aclient(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=30) as made:
        yield made


@pytest.fixture
def http(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=30) as made:
        yield made
