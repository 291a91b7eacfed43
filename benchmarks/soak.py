"""``bench soak``: everything at once for a while, and what is left of it.

Mixed requests, clients that leave, bad bodies, switches between models, slow readers and silent connections, against
the service in a process of its own. Told are its resident memory, open files and threads before and after, and every
answer that should not have been. ``SOAK_SECONDS`` (60, at most 600) says for how long.
"""
# ruff: noqa: D102

import json
import os
import random
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from tests.faults.wire import post
from tests.support.process import Service, service
from tests.support.tiny import make_tiny

SECONDS = min(600.0, float(os.environ.get("SOAK_SECONDS", "60")))
CLIENTS = 12
IDLE = 200
MODELS = ("tiny-a", "tiny-b", "tiny-c")
BAD = (
    b"",
    b"{",
    b"[" * 5000,
    b'{"model": "tiny-a", "prompt": "x", "stop": 5}',
    b'{"model": "tiny-a", "prompt": [], "max_tokens": 1}',
    b'{"model": "tiny-a", "prompt": "x", "logit_bias": {"99999999": 1}}',
    b'{"model": "no/such", "prompt": "x"}',
    b'{"model": "tiny-a", "prompt": "x", "n": 1000000}',
    b'{"model": "tiny-a", "prompt": "x", "stop": "\\ud800"}',
    b'{"model": "tiny-a", "messages": [], "chat_template_kwargs": {"chat_template": "{{ 1 }}"}}',
)


class Soak:
    """What the clients do, each on a thread of its own."""

    def __init__(self, port: int, until: float) -> None:
        self._port = port
        self._until = until
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []

    def client(self, seed: int) -> None:
        chance = random.Random(seed)
        deeds = (self.whole, self.whole, self.streamed, self.chat, self.leaver, self.bad, self.slow, self.switch)
        while time.monotonic() < self._until:
            deed = chance.choice(deeds)
            try:
                deed(chance)
                self.seen[deed.__name__] += 1
            except (OSError, AssertionError) as failure:
                self.wrong.append(f"{deed.__name__}: {failure!r}"[:300])

    def whole(self, chance: random.Random) -> None:
        body = {"model": chance.choice(MODELS), "prompt": "word " * chance.randint(1, 300), "max_tokens": 20, "n": 2}
        self._expect(self._ask("/v1/completions", body), 200)

    def streamed(self, chance: random.Random) -> None:
        body = {"model": chance.choice(MODELS), "prompt": "Hello", "max_tokens": chance.randint(1, 60), "stream": True}
        answer = self._ask("/v1/completions", body)
        self._expect(answer, 200)
        assert b"data: [DONE]" in answer, answer[-200:]

    def chat(self, chance: random.Random) -> None:
        body = {"model": chance.choice(MODELS), "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10}
        self._expect(self._ask("/v1/chat/completions", body), 200)

    def leaver(self, chance: random.Random) -> None:
        body = {"model": chance.choice(MODELS), "prompt": "Hello", "max_tokens": 500, "stream": chance.random() < 0.5}
        with socket.create_connection(("127.0.0.1", self._port), timeout=60) as line:
            line.sendall(post("/v1/completions", json.dumps(body).encode()))
            time.sleep(chance.uniform(0, 0.3))

    def bad(self, chance: random.Random) -> None:
        raw = chance.choice(BAD)
        path = "/v1/chat/completions" if b"messages" in raw else "/v1/completions"
        with socket.create_connection(("127.0.0.1", self._port), timeout=60) as line:
            line.sendall(post(path, raw))
            answer = _rest(line)
        assert answer[9:10] == b"4", (raw[:80], answer[:300])

    def slow(self, chance: random.Random) -> None:
        body = {"model": chance.choice(MODELS), "prompt": "Hello", "max_tokens": 200, "stream": True, "n": 4}
        with socket.create_connection(("127.0.0.1", self._port), timeout=60) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.sendall(post("/v1/completions", json.dumps(body).encode()))
            for _ in range(20):
                line.recv(512)
                time.sleep(0.05)

    def switch(self, chance: random.Random) -> None:
        answer = self._ask(f"/admin/models/{chance.choice(MODELS)}/unload", {})
        assert answer[9:12] in {b"200", b"409"}, answer[:300]

    def _ask(self, path: str, body: dict[str, object]) -> bytes:
        with socket.create_connection(("127.0.0.1", self._port), timeout=120) as line:
            line.sendall(post(path, json.dumps(body).encode()))
            return _rest(line)

    def _expect(self, answer: bytes, status: int) -> None:
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:400]


def _rest(line: socket.socket) -> bytes:
    received = b""
    while piece := line.recv(65536):
        received += piece
    return received


def figures(process: psutil.Process) -> dict[str, float]:
    models = process.children(recursive=True)
    return {
        "resident MiB": round(process.memory_info().rss / 2**20, 1),
        "open files": process.num_fds(),
        "threads": process.num_threads(),
        "processes of models": len(models),
        "their MiB": round(sum(it.memory_info().rss for it in models) / 2**20, 1),
    }


def settled(running: Service) -> dict[str, float]:
    """Figures once the service has nothing to do, and a process waits for the next load again."""
    time.sleep(6)
    return figures(psutil.Process(running.process.pid))


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for seed, name in enumerate(MODELS):
            make_tiny(root / name, seed=seed, width=128)
        # room for two of the three models, so that they take each other's place
        flags = ("--offline", "--model-root", str(root), "--default-model", "tiny-a", "--min-residency", "0.5")
        with service(
            *flags, "--memory-budget", os.environ.get("SOAK_BUDGET", "700MiB"), "--log-level", "warning"
        ) as it:
            port = int(it.url.rpartition(":")[2])
            warm = Soak(port, time.monotonic() + min(10.0, SECONDS / 4))
            run(warm)
            before = settled(it)
            idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(IDLE)]
            soak = Soak(port, time.monotonic() + SECONDS)
            run(soak)
            for line in idle:
                line.close()
            after = settled(it)
            report(soak, before, after)
            print(f"  models loaded {counted(port, 'loads')} times, gone again {counted(port, 'evictions')} times")
            if soak.wrong or it.process.poll() is not None or "Traceback" in it.log:
                print(it.log[-4000:])
                sys.exit(1)


def counted(port: int, what: str) -> int:
    """A counter of the service's own."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        text = _rest(line).decode()
    found = re.search(rf"^switchyard_model_{what}_total (\S+)", text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def run(soak: Soak) -> None:
    threads = [threading.Thread(target=soak.client, args=(seed,)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def report(soak: Soak, before: dict[str, float], after: dict[str, float]) -> None:
    print(f"{SECONDS:.0f} s, {CLIENTS} clients, {IDLE} idle connections: {sum(soak.seen.values())} deeds")
    print(f"  {dict(soak.seen)}")
    for name, value in before.items():
        print(f"  {name:20} {value:>8} before {after[name]:>8} after")
    print(f"  {len(soak.wrong)} answers that should not have been")
    for line in soak.wrong[:10]:
        print(f"    {line}")


if __name__ == "__main__":
    main()
