"""The service's side of models' processes: the one that waits, shares, and systems that confine too much."""

import asyncio
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.engine.base import Sequence, Token
from app.engine.client.engine import ProcessEngine
from app.engine.client.process import EngineProcess, Watch
from app.engine.client.processes import Processes, ProcessLoader
from app.engine.facts import Limits
from app.engine.grammar import Grammar
from app.engine.host.answers import AT_ONCE
from app.engine.host.setup import Folders
from app.engine.ids import unpacked
from app.engine.messages import SetLimits
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.cache.prefix import PrefixPool
from app.engine.mlx.guide.compiler import TOKEN_BYTES
from app.engine.mlx.load.loader import MLXLoader
from app.engine.mlx.loaded import ABLE
from app.engine.options import Batching
from app.errors import EngineLost, InvalidRequest
from app.schemas.sampling import Sampling
from tests.support.tiny import make_tiny

GREEDY = Sampling(temperature=0.0)


def processes(*folders: Path, **more: Any) -> ProcessLoader:
    watch = Watch(Folders(read=tuple(map(str, folders))), Batching(8), timeout=60)
    return ProcessLoader(Processes(watch=watch, prefixes=8 << 20, **more), lambda: 4 << 30)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("a", "b")):
        make_tiny(root / name, seed=seed)
    return root


async def said(engine: ProcessEngine, count: int = 5) -> list[Token]:
    stream = engine.generate((Sequence((5, 6, 7), GREEDY, max_tokens=count),))
    return [item async for items in stream for item in items if isinstance(item, Token)]


async def test_a_load_takes_the_process_that_waits_and_another_waits_after_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.client.spare.DELAY", 0.05)
    loader = processes(root)
    loader.start()
    waiting = loader._spare.process.pid
    await loader.device()
    engine = await loader.load(root / "a", name="a")
    assert engine.status().pid == waiting
    for _ in range(200):
        await asyncio.sleep(0.02)
        if loader._spare.process is not None:
            break
    assert loader._spare.process.pid != waiting
    assert engine.together == ABLE.described
    assert len(await said(engine)) == 5
    await engine.close()
    assert engine.status().pid == 0
    await loader.close()


def test_a_process_that_was_told_to_end_is_told_nothing_more(root: Path) -> None:
    """On the loop of the service, which raises where asyncio's own is silent."""

    async def run() -> None:
        loader = processes(root, spare=False)
        loader.start()
        engine = await loader.load(root / "a", name="a")
        await engine.process.end()
        engine.process.send(SetLimits(Limits(memory=1, pool=1, prefixes=1)))
        await engine.close()
        await loader.close()

    with asyncio.Runner(loop_factory=pytest.importorskip("uvloop").new_event_loop) as runner:
        runner.run(run())


async def test_a_process_that_waits_has_started_what_renders_the_first_conversation(root: Path) -> None:
    loader = processes(root)
    loader.start()
    waiting = psutil.Process(loader._spare.process.pid)
    for _ in range(2000):
        await asyncio.sleep(0.02)
        renderers = [it for it in waiting.children() if "template_helper" in " ".join(it.cmdline())]
        if renderers:
            break
    (renderer,) = renderers
    assert renderer.nice() == waiting.nice()
    engine = await loader.load(root / "a", name="a")
    assert "Hi" in (await engine.tokenizer.render_chat([{"role": "user", "content": "Hi"}])).text
    assert renderer.is_running()
    await engine.close()
    await loader.close()


async def test_a_load_that_is_expected_finds_its_process_started(root: Path) -> None:
    loader = processes(root)
    loader.start()
    await (await loader.load(root / "a", name="a")).close()
    loader.expect()
    waiting = loader._spare.process.pid
    loader.expect()
    assert loader._spare.process.pid == waiting
    engine = await loader.load(root / "b", name="b")
    assert engine.status().pid == waiting
    await loader.close()


async def test_what_is_made_ready_for_the_next_load_waits_until_a_load_is_over(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.client.spare.DELAY", 0.0)
    loader = processes(root)
    loader.start()
    await loader.device()
    first = await loader.load(root / "a", name="a")
    await first.close()
    loading = asyncio.create_task(loader.load(root / "b", name="b"))
    while not loader._residents:  # noqa: ASYNC110  a moment inside load
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    assert loader._spare._timer is None
    assert loader._spare.process is None
    await loading
    for _ in range(200):
        if loader._spare.process is not None:
            break
        await asyncio.sleep(0.02)
    assert loader._spare.process is not None
    await loader.close()


async def test_without_a_spare_nothing_waits(root: Path) -> None:
    loader = processes(root, spare=False)
    loader.start()
    await (await loader.load(root / "a", name="a")).close()
    loader.expect()
    await asyncio.sleep(0.1)
    assert loader._spare.process is None
    await loader.close()


async def test_a_model_behind_a_link_is_loaded_by_a_process_that_may_follow_it(root: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in (root / "b").iterdir():
        (linked / file.name).symlink_to(file)
    loader = processes(tmp_path)
    loader.start()
    engine = await loader.load(linked, name="linked")
    assert len(await said(engine)) == 5
    await engine.close()
    await loader.close()


async def test_where_confined_processes_do_not_start_they_start_unconfined(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loader = processes(root)
    real = loader._start

    def start(*given: Any, **more: Any) -> EngineProcess:
        if loader._watch.confined:
            monkeypatch.setattr("app.engine.client.process.command", lambda _setup: ["/bin/false"])
        else:
            monkeypatch.undo()
        return real(*given, **more)

    loader._start = start  # type: ignore[method-assign]
    loader.start()
    assert (await loader.device()).memory
    assert "unconfined" in caplog.text
    await loader.close()


async def test_a_process_that_never_starts_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.client.process.command", lambda _setup: ["/bin/false"])
    loader = processes(root)
    loader.start()
    with pytest.raises(EngineLost, match="exit code 1"):
        await loader.device()
    await loader.close()


async def test_questions_are_answered_and_refused_as_in_one_process(root: Path) -> None:
    loader = processes(root)
    loader.start()
    engine = await loader.load(root / "a", name="a")
    tokenizer = engine.tokenizer
    ids = await tokenizer.encode("Grüße, 日本語", special_tokens=False)
    assert await tokenizer.decode(tuple(ids)) == "Grüße, 日本語"
    assert await tokenizer.fill_in_middle("a", "b") is None
    assert await tokenizer.count("word " * 100_000, 50) > 50
    short = await tokenizer.render_chat([{"role": "user", "content": "Hi"}], variables={"huge": 1 << 80})
    assert short.text.endswith("<|im_start|>assistant\n")
    assert short.packed is not None
    assert list(unpacked(short.packed)) == await tokenizer.encode(short.text, special_tokens=False)
    long = await tokenizer.render_chat([{"role": "user", "content": "word " * AT_ONCE}])
    assert long.packed is None
    assert engine.first_grammar >= TOKEN_BYTES * engine.tokenizer.facts.vocab_size
    with pytest.raises(InvalidRequest) as refusal:
        await engine.prepare(Grammar("regex", "(", param="regex"))
    assert refusal.value.param == "regex"
    assert engine.first_grammar == 0, "it is made, and booked, though this grammar is wrong"
    await engine.prepare(Grammar("regex", "[0-9]+"))
    await loader.close()


async def test_each_process_is_told_what_the_others_hold_and_whether_they_compute(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.client.shares.DELAY", 0.01)
    loader = processes(root, spare=False)
    loader.start()
    a = await loader.load(root / "a", name="a")
    b = await loader.load(root / "b", name="b")
    assert loader._shares.sent[a.process].memory == (4 << 30) - b.nbytes
    assert loader._shares.sent[a.process].prefixes == 4 << 20
    long = (Sequence((5, 6, 7), GREEDY, max_tokens=1500),)
    first = a.generate(long)
    assert loader._shares.sent[a.process].busy == 0
    second = b.generate(long)
    assert loader._shares.sent[b.process].busy == 1, "what it begins with is told before"
    await asyncio.sleep(0.05)
    assert loader._shares.sent[a.process].busy == 1
    second.close()
    await asyncio.sleep(0.05)
    assert loader._shares.sent[a.process].busy == 0
    first.close()
    await b.close()
    assert loader._shares.sent[a.process].memory == 4 << 30
    await loader.close()


async def test_models_that_are_asked_in_turns_are_told_nothing_of_each_other(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.client.shares.DELAY", 0.01)
    loader = processes(root, spare=False)
    loader.start()
    engines = [await loader.load(root / name, name=name) for name in "ab"]
    told = []
    for engine in engines:
        send = engine.process.send
        monkeypatch.setattr(
            engine.process,
            "send",
            lambda it, send=send: (told.append(it), send(it)) if isinstance(it, SetLimits) else send(it),
        )
    for _ in range(3):
        for engine in engines:
            await said(engine)
            await asyncio.sleep(0.02)
    assert told == []
    await loader.close()


@pytest.mark.not_on_cuda("the process grows by the kernels that are compiled meanwhile")
async def test_a_service_that_does_not_read_holds_the_steps_and_no_more(root: Path) -> None:
    loader = processes(root, spare=False)
    loader.start()
    engine = await loader.load(root / "a", name="a")
    stream = engine.generate((Sequence((5, 6, 7), GREEDY, max_tokens=1500, rows=8, logprobs=5),))
    engine.process._transport.pause_reading()
    await asyncio.sleep(1.0)
    held = engine.status().resident
    await asyncio.sleep(1.0)
    assert engine.status().resident - held < 8 << 20
    engine.process._transport.resume_reading()
    tokens = [item async for items in stream for item in items if isinstance(item, Token)]
    assert sum(token.finish is not None for token in tokens) == 8
    await loader.close()


async def test_a_tokenizer_that_was_read_ahead_for_another_model_goes_once_a_model_is_loaded(root: Path) -> None:
    loader = MLXLoader(MLXThread(asyncio.get_running_loop()), PrefixPool(0), Batching(4))
    for name in ("a", "b"):
        await loader.read_tokenizer(root / name)
    engine = await loader.load(root / "a", name="a")
    assert not loader._tokenizers._read
    assert engine.encode("Hi")
    await engine.close()
    await loader.close()
