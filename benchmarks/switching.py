"""Models that share one machine: waits, gaps, memory, first tokens and states, measured on a running server.

Run from the project's directory: ``python -m benchmarks.switching [PART...]``, the parts being the names of
:data:`PARTS`. Every server is a process of its own with a budget that holds one or two of the models.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median

import httpx2
import msgspec

from app.schemas.admin import AdminEvent, AdminMemory, AdminModels
from benchmarks import servers
from benchmarks.bench import Bench
from benchmarks.client import HOST, Load
from benchmarks.servers import Server
from benchmarks.traffic import chat

FOUR = ("w64", "w64-other", "w64-third", "w64-fourth")
"""Models of 13 MB each in memory."""
LARGE = "135m"
"""269 MB on disk; 538 MB in memory on a CPU, where 16-bit weights are widened."""
BUDGETS = {"one": "280MiB", "two": "460MiB"}
CLIENTS = 20
SWITCHES = 200
SLICE = 50
ENOUGH = 150
"""Tokens of a stream before something happens to it."""


def main() -> None:
    bench = Bench(Path("build/benchmarks").resolve(), 1)
    bench.make(*FOUR, LARGE)
    for name in [name for name in sys.argv[1:] if name in PARTS] or PARTS:
        print(f"\n{PARTS[name].__doc__}")
        PARTS[name](bench)


def contention(bench: Bench) -> None:
    """Two models, memory for one, 20 requests to each at once, in seconds."""
    with _server(bench, "one") as server:
        turns = [chat(FOUR[row % 2], f"Number {row}.", 40) for row in range(2 * CLIENTS)]
        answers = server.drive(Load(0, turns))
        print(f"{'model':12}{'answered':>10}{'p50':>8}{'p95':>8}{'max':>8}   to the first token")
        for model in (0, 1):
            waits = sorted(answer.first for answer in answers[model::2])
            figures = "".join(f"{wait:8.2f}" for wait in (median(waits), waits[-2], waits[-1]))
            print(f"{FOUR[model]:12}{len(waits):>7}/{CLIENTS}{figures}")
        print(f"loads: {_loads(server)}")


def gap(bench: Bench) -> None:
    """A stream on one model while another is loaded: gaps between tokens, in milliseconds."""
    print(f"{'loaded meanwhile':38}{'loading':>9}{'p50 before':>12}{'max before':>12}{'p50':>8}{'p95':>8}{'max':>8}")
    for again in ("first load of the process", "loaded again"):
        with _server(bench, None) as server:
            server.drive(Load(0, [chat(FOUR[0], "Warm up.", 8)]))
            if again == "loaded again":
                _act(server, LARGE, "load")
                _act(server, LARGE, "unload")
            for model in (LARGE, FOUR[1]):
                with _streaming(server, FOUR[0]) as times:
                    while len(times) < ENOUGH:
                        time.sleep(0.1)
                    begun = time.perf_counter()
                    _act(server, model, "load")
                    ended = time.perf_counter()
                    time.sleep(0.2)
                pairs = [(after, after - before) for before, after in pairwise(times)]
                before = [gap for when, gap in pairs if when < begun]
                during = sorted(gap for when, gap in pairs if begun <= when and when - gap <= ended)
                figures = (median(before), max(before), median(during), during[int(0.95 * len(during))], during[-1])
                told = "".join(f"{it * 1e3:{width}.1f}" for it, width in zip(figures, (12, 12, 8, 8, 8), strict=True))
                print(f"{model + ', ' + again:38}{ended - begun:8.2f}s{told}")


def memory(bench: Bench) -> None:
    """200 switches around four models: memory in MB after every 50, with nothing resident."""
    for places in BUDGETS:
        with _server(bench, places) as server:
            for number in range(SWITCHES + 1):
                if number % SLICE == 0:
                    _empty(server)
                    held = _memory(server)
                    print(
                        f"memory for {places}, after {number:3} requests: active {held.active / 1e6:6.2f}, "
                        f"pool {held.pool / 1e6:6.2f}, process {held.process / 1e6:7.1f}, loads {_loads(server)}"
                    )
                server.drive_here(FOUR[number % 4], f"Switch {number}.")


def first(bench: Bench) -> None:
    """From request to first token, in milliseconds: five of each, and their median."""
    print(f"{'model':8}{'case':44}{'median':>8}   each")
    for model in (FOUR[0], LARGE):
        cold = []
        for _ in range(5):
            with _server(bench, None) as server:
                cold.append(_first(server, model))
        evicted, resident, others = [], [], []
        with _server(bench, None) as server:
            _first(server, FOUR[1])
            others.append(_first(server, model))
            for _ in range(5):
                _act(server, model, "unload")
                evicted.append(_first(server, model))
                resident.append(_first(server, model))
        cases = {
            "cold: the first load of a new process": cold,
            "new: the first load of this model": others,
            "evicted: loaded before": evicted,
            "resident": resident,
        }
        for case, times in cases.items():
            each = " ".join(f"{it * 1e3:.0f}" for it in times)
            print(f"{model:8}{case:44}{median(times) * 1e3:8.0f}   {each}")


def states(bench: Bench) -> None:
    """What /admin/events tells of two models while memory for one goes back and forth (times in seconds)."""
    with _server(bench, "one") as server, _watched(server) as seen:
        for model in (FOUR[0], FOUR[1], FOUR[0]):
            server.drive(Load(0, [chat(model, f"Hello {model}.", 200)]))
    for when, line in seen:
        print(f"{when:7.3f}  {line}")


def pull(bench: Bench) -> None:  # noqa: ARG001
    """A pull through POST /admin/models/.../pull, cut three times by the hub."""
    from tests.support.cut_pull import cut_pull  # noqa: PLC0415  a hub of this machine

    with tempfile.TemporaryDirectory() as place:
        for line in cut_pull(Path(place), cuts=3, width=512):
            print(line)


PARTS: dict[str, Callable[[Bench], None]] = {
    "contention": contention,
    "gap": gap,
    "memory": memory,
    "first": first,
    "states": states,
    "pull": pull,
}


class _Measured(Server):
    """The service, and plain requests to it from this process."""

    def drive_here(self, model: str, text: str) -> None:
        """One short answer."""
        body = chat(model, text, 4, stream=False).body
        self.client.post("/v1/chat/completions", json=body).raise_for_status()

    @property
    def client(self) -> httpx2.Client:
        """Made once for every server."""
        if "_client" not in vars(self):
            self._client = httpx2.Client(base_url=f"http://{HOST}:{self.port}", timeout=300)
        return self._client


def _server(bench: Bench, places: str | None) -> _Measured:
    flags = [] if places is None else ["--memory-budget", BUDGETS[places]]
    return _Measured("switchyard", bench.home, (), [*servers.SERVE, "--model-root", str(bench.home), *flags])


def _act(server: _Measured, model: str, action: str) -> None:
    server.client.post(f"/admin/models/{model}/{action}").raise_for_status()


def _first(server: _Measured, model: str) -> float:
    (answer,) = server.drive(Load(0, [chat(model, f"At {time.time()}.", 2)]))
    return answer.first


def _empty(server: _Measured) -> None:
    models = msgspec.json.decode(server.client.get("/admin/models").content, type=AdminModels).data
    for model in models:
        if model.state == "resident":
            _act(server, model.id, "unload")


def _memory(server: _Measured) -> AdminMemory:
    return msgspec.json.decode(server.client.get("/admin/memory").content, type=AdminMemory)


def _loads(server: _Measured) -> int:
    lines = server.client.get("/metrics").text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("switchyard_model_loads_total"))))


@contextmanager
def _streaming(server: _Measured, model: str) -> Iterator[list[float]]:
    """When the pieces of one long stream came, while the block runs."""
    times: list[float] = []
    over = threading.Event()

    def follow() -> None:
        body = chat(model, "Go on.", 7000).body
        url = f"http://{HOST}:{server.port}/v1/chat/completions"
        with httpx2.stream("POST", url, json=body, timeout=60) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    times.append(time.perf_counter())
                if over.is_set():
                    return

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield times
    finally:
        over.set()
        thread.join()


@contextmanager
def _watched(server: _Measured) -> Iterator[list[tuple[float, str]]]:
    """Every state of the models that are not merely on disk, as the live feed tells them."""
    seen: list[tuple[float, str]] = []
    begun = time.monotonic()

    def follow() -> None:
        try:
            with httpx2.stream("GET", f"http://{HOST}:{server.port}/admin/events", timeout=30) as response:
                for line in response.iter_lines():
                    if line.startswith("data: {"):
                        _note(seen, time.monotonic() - begun, msgspec.json.decode(line[6:], type=AdminEvent))
        except httpx2.HTTPError:
            pass  # the server has stopped

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    yield seen
    time.sleep(0.3)


def _note(seen: list[tuple[float, str]], when: float, event: AdminEvent) -> None:
    if event.models is msgspec.UNSET:
        return
    told = "; ".join(
        f"{it.id}: {it.state}, {it.nbytes / 1e6:.1f} MB, KV {it.kv_bytes / 1e3:.0f} kB, "
        f"{it.leases} leases, {it.queued} queued"
        for it in event.models
        if it.state not in {"on_disk", "absent"} and it.id in FOUR
    )
    if not seen or seen[-1][1] != told:
        seen.append((when, told))


if __name__ == "__main__":
    main()
