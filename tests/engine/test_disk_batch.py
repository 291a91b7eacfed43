"""Several conversations with memory for one or two, whatever memory and disk lose: no text is another.

On small models, with the batch stepped by hand and what its disk tier posts done between steps.
"""

from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.base import Sequence
from app.engine.disk.store import DiskStore
from app.engine.mlx.batch.batch import ModelBatch
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.cache.prefix import PrefixPool
from tests.engine.test_conversations import bench_of, model_of, said
from tests.support.batches import GREEDY, HandBatch, HandThread, Stream

MODEL = "1" * 32


class Posting(HandThread):
    """What is posted waits for the batch's next step."""

    def __init__(self) -> None:
        self.posted: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def post(self, function: Callable[[], None]) -> None:
        self.posted.put(function)

    def post_later(self, _: float, function: Callable[[], None]) -> None:
        self.posted.put(function)


class DiskBatch(HandBatch):
    def __init__(self, family: str, folder: Path, prefix_bytes: int, max_rows: int = 8) -> None:
        self.posting, loaded, self.pool = Posting(), model_of(family), PrefixPool(prefix_bytes)
        self.batch = ModelBatch(
            cast("MLXThread", self.posting),
            loaded,
            self.pool,
            max_rows=max_rows,
            slice_tokens=128,
            store=DiskStore(folder, MODEL, 1 << 30, free=0),
        )

    def until(self, done: Callable[[], bool]) -> None:
        for _ in range(20_000):
            self.batch.step()
            try:
                self.posting.posted.get(timeout=0 if self.batch.busy() else 0.05)()
            except Empty:
                if done():
                    return
        raise AssertionError("it does not come to an end")

    def say(self, *prompts: tuple[int, ...]) -> list[Stream]:
        streams = [self.submit(Sequence(prompt, GREEDY, max_tokens=20)) for prompt in prompts]
        self.until(lambda: not self.batch.busy() and not self.batch.arrivals.waiting)
        return streams

    def end(self, *, settled: bool) -> None:
        """Like a service that is told to stop, or killed."""
        if settled:
            self.settle()
        self.batch.arrivals.close()

    def settle(self) -> None:
        done: list[bool] = []
        self.batch.arrivals.settle(lambda: done.append(True))
        self.until(lambda: bool(done))


@pytest.mark.parametrize("family", ["llama", "qwen3_next"])
@settings(max_examples=2, deadline=None)
@given(data=st.data())
def test_texts_are_those_without_a_cache_whatever_memory_and_disk_have_lost(
    family: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, bench = tmp_path_factory.mktemp("disk"), bench_of(family)
    limit = data.draw(st.sampled_from([1 << 17, 1 << 19]))
    batch, sessions = DiskBatch(family, folder, limit), [said(number, 200) for number in range(4)]
    for turn in range(3):
        streams = batch.say(*sessions)
        for number, (prompt, stream) in enumerate(zip(sessions, streams, strict=True)):
            answer = tuple(stream.ids())
            stream.tokens[0, 0] = stream.tokens[0, 0][:8]
            assert bench.wrong(stream, prompt) is None
            sessions[number] = (*prompt, *answer, *said(100 * turn + number, 60))
        match data.draw(st.sampled_from(["go on", "stop", "kill", "damage"])):
            case "stop" | "kill" as how:
                batch.end(settled=how == "stop")
                batch = DiskBatch(family, folder, limit)
            case "damage":
                files = sorted(folder.glob("*/*.*"))
                for file in files[:: data.draw(st.integers(1, 3))]:
                    content = bytearray(file.read_bytes())
                    content[data.draw(st.integers(0, len(content) - 1))] ^= 0xFF
                    file.write_bytes(content)
    batch.end(settled=False)


@pytest.mark.parametrize("family", ["llama", "qwen3_next"])
def test_what_memory_lets_go_of_before_a_prompts_turn_is_read(family: str, tmp_path: Path) -> None:
    known, batch = said(0, 900), DiskBatch(family, tmp_path, 1 << 24, max_rows=1)
    batch.say(known)
    batch.settle()
    batch.pool.limit = batch.pool.nbytes * 5 // 4
    _, stream = batch.say(said(1, 850), (*known, *said(2, 9)))  # the shorter one first, which leaves no room for both
    assert stream.prefilled[0].cached_tokens > 800
    batch.end(settled=False)


@pytest.mark.parametrize("at_once", [1, 1 << 20])
def test_however_many_files_are_taken_in_one_go_all_are_written(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.mlx.cache.ahead.AT_ONCE", at_once)
    batch = DiskBatch("llama", tmp_path, 1 << 24)
    for number in range(3):
        batch.say(said(number, 900))
    batch.end(settled=True)
    names = [path.name for path in tmp_path.glob("*/*.keys")]
    assert len(names) == 3 * 4, "three whole pieces and an end each"
