"""Several services behind one address: ``docs/ops/haproxy.cfg`` and ``nginx.conf`` as they are, but for their ports."""

import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
OPS = ROOT / "docs" / "ops"
SESSIONS, TURNS = 40, 10


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


class Replica:
    """One service that can be stopped and started again at its port; it answers with its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.replica", self.name, str(self.port)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> "Replica":
        assert self.process is not None
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


@pytest.fixture(scope="module")
def replicas() -> Iterator[list[Replica]]:
    made = [Replica("a"), Replica("b")]
    try:
        for replica in made:
            replica.start()
        yield [replica.ready() for replica in made]
    finally:
        for replica in made:
            replica.stop()


@pytest.fixture(autouse=True)
def everybody_is_up(replicas: list[Replica]) -> None:
    """Whatever the test before has stopped."""
    for replica in replicas:
        if replica.process is None:
            replica.start()
            replica.ready()


@contextmanager
def proxy(program: str, arguments: list[str], port: int) -> Iterator[int]:
    """A proxy that answers at ``port`` while the block runs."""
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: told(port, "GET", "/health/ready")[0] == 200, "the proxy finds its services")
        yield port
    finally:
        process.terminate()
        process.wait(20)


def found(program: str) -> str:
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/opt/homebrew/bin")
    if path is None and os.environ.get("CI") and sys.platform == "linux":
        pytest.fail(f"{program} is missing, and on this machine (CI is set) it is tested or the tests fail")
    if path is None:
        pytest.skip(f"needs {program} (Debian: apt-get install {program})")
    return path


def written(name: str, replicas: list[Replica], place: Path) -> tuple[Path, int]:
    """The file ``name`` of docs/ops with ports that are free, and the port to ask at."""
    text, port = (OPS / name).read_text(), free_port()
    for there, here in (("8080", port), *zip(("8001", "8002"), (it.port for it in replicas), strict=True)):
        assert text.count(f"127.0.0.1:{there}") == 1
        text = text.replace(f"127.0.0.1:{there}", f"127.0.0.1:{here}")
    assert text.count("/run/") == 1
    (place / name).write_text(text.replace("/run/", f"{place}/"))
    return place / name, port


@pytest.fixture(scope="module")
def haproxys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HAProxy's own folder, as /run."""
    return tmp_path_factory.mktemp("haproxy")


@pytest.fixture(scope="module")
def haproxy(replicas: list[Replica], haproxys: Path) -> Iterator[int]:
    program = found("haproxy")
    file, port = written("haproxy.cfg", replicas, haproxys)
    with proxy(program, ["-q", "-db", "-f", str(file)], port):
        yield port


@pytest.fixture(scope="module")
def nginx(replicas: list[Replica], tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    program, place = found("nginx"), tmp_path_factory.mktemp("nginx")
    file, port = written("nginx.conf", replicas, place)
    temporary = "".join(
        f"{kind}_temp_path {place}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file.write_text(file.read_text().replace("http {", f"http {{ access_log off; {temporary}", 1))
    with proxy(program, ["-e", "stderr", "-g", "daemon off;", "-c", str(file)], port):
        yield port


def until(condition: Callable[..., Any], otherwise: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    raise AssertionError(f"not in time: {otherwise}")


def told(port: int, method: str, path: str, body: object = None, **headers: Any) -> tuple[int, HTTPMessage, bytes]:
    """Status, headers and body of an answer."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        line.request(method, path, data, {"content-type": "application/json", **named})
        answer = line.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        line.close()


def chat(*messages: str, **more: object) -> dict[str, Any]:
    roles = ["user", "assistant"] * len(messages)
    turns = [{"role": role, "content": text} for role, text in zip(roles, messages, strict=False)]
    return {"model": "tiny", "messages": turns, **more}


def who(port: int, body: object, path: str = "/v1/chat/completions", **headers: Any) -> str:
    """The name of the service that has answered; what else came, where none has."""
    status, _, answer = told(port, "POST", path, body, **headers)
    if status != 200:
        return f"{status}: {answer.decode()[:300]}"
    read = json.loads(answer)
    if path == "/v1/responses":
        return read["output"][0]["content"][0]["text"]
    return read["choices"][0]["message"]["content"] if "chat" in path else read["choices"][0]["text"]


class Session:
    """A conversation that goes on: who has answered which turn, each with all that was said before."""

    def __init__(self, port: int, number: int) -> None:
        self.answers: list[str] = []
        self._port = port
        self._said = [f"question {number} of many"]

    def turn(self) -> None:
        answer = who(self._port, chat(*self._said))
        self.answers.append(answer)
        self._said += [answer, f"and then, {len(self.answers)}?"]

    def is_home(self) -> bool:
        """Whether its own service would answer it now."""
        return who(self._port, chat(*self._said)) == self.answers[0]

    @property
    def own(self) -> int:
        """Turns that its own service has answered."""
        return self.answers.count(self.answers[0])


def in_turns(sessions: list[Session], turns: int) -> None:
    """Each session has that many turns more, all sessions at once."""
    with ThreadPoolExecutor(len(sessions)) as threads:
        list(threads.map(lambda it: [it.turn() for _ in range(turns)], sessions))


def test_conversations_stay_with_their_service(haproxy: int) -> None:
    sessions = [Session(haproxy, number) for number in range(SESSIONS)]
    in_turns(sessions, TURNS)
    assert {name for it in sessions for name in it.answers} == {"a", "b"}
    share = sum(it.own for it in sessions) / (SESSIONS * TURNS)
    assert share >= 0.95


USER = {"role": "user", "content": "second"}
LEADS: list[Any] = [{"role": "system", "content": "You help."}, {"role": "developer", "content": "Be short."}]
KEYED: dict[str, tuple[str, Callable[[str, int], tuple[dict[str, Any], dict[str, str]]]]] = {
    "X-Session-Id": ("/v1/completions", lambda key, turn: ({"prompt": f"{turn}"}, {"X-Session-Id": key})),
    "Claude Code": (
        "/v1/chat/completions",
        lambda key, turn: (chat(f"{turn}"), {"X-Claude-Code-Session-Id": key}),
    ),
    "Codex": ("/v1/responses", lambda key, turn: ({"input": f"{turn}"}, {"session-id": key})),
    "prompt_cache_key": ("/v1/responses", lambda key, turn: ({"input": f"{turn}", "prompt_cache_key": key}, {})),
    "a system prompt before": (
        "/v1/chat/completions",
        lambda key, turn: ({"messages": [LEADS[0], *chat(key, *["more"] * 2 * turn)["messages"]]}, {}),
    ),
    "two system prompts before": (
        "/v1/chat/completions",
        lambda key, turn: ({"messages": [*LEADS, *chat(key, *["more"] * 2 * turn)["messages"]]}, {}),
    ),
    "content in parts": (
        "/v1/chat/completions",
        lambda key, turn: (
            {
                "messages": [
                    LEADS[0],
                    {"role": "user", "content": [{"type": "text", "text": key}, {"type": "text", "text": f"{turn}"}]},
                ]
            },
            {},
        ),
    ),
    "items of a response": (
        "/v1/responses",
        lambda key, turn: ({"input": [LEADS[1], {"role": "user", "content": key}, *[USER] * turn]}, {}),
    ),
    "items in parts": (
        "/v1/responses",
        lambda key, turn: (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": key}]}, *[USER] * turn]},
            {},
        ),
    ),
    "a prompt that grows": ("/v1/completions", lambda key, turn: ({"prompt": key * 10 + "more" * turn}, {})),
    "a first message behind a megabyte": (
        "/v1/chat/completions",
        lambda key, turn: ({"metadata": {"pad": "x" * (1_000_000 + turn)}, **chat(key)}, {}),
    ),
}


@pytest.mark.parametrize("kind", KEYED)
def test_a_conversation_is_known_by(haproxy: int, kind: str) -> None:
    path, make = KEYED[kind]
    chance = random.Random(kind)  # noqa: S311
    reached = set()
    for _ in range(12):
        key = f"{chance.randbytes(16).hex()}"
        answers = set()
        for turn in range(2):
            body, headers = make(key, turn)
            answers.add(who(haproxy, {"model": "tiny", **body}, path, **headers))
        assert len(answers) == 1, (kind, answers)
        reached |= answers
    assert reached == {"a", "b"}


@pytest.mark.parametrize("kind", ["X-Session-Id", "Claude Code", "Codex"])
def test_nginx_knows_a_conversation_by_its_headers(nginx: int, kind: str) -> None:
    test_a_conversation_is_known_by(nginx, kind)


def test_nginx_loses_nothing_while_a_service_is_away(nginx: int, replicas: list[Replica]) -> None:
    named = {f"session {number}": "" for number in range(12)}
    for key in named:
        named[key] = who(nginx, chat("first"), X_Session_Id=key)
    assert set(named.values()) == {"a", "b"}
    replicas[0].stop()
    assert {who(nginx, chat("second"), X_Session_Id=key) for key in named} == {"b"}
    replicas[0].start()
    replicas[0].ready()

    def home() -> bool:
        return all(who(nginx, chat("third"), X_Session_Id=key) == name for key, name in named.items())

    until(home, "every conversation is back at its service")


@pytest.mark.parametrize("before", ["haproxy", "nginx"])
def test_tokens_pass_as_they_come(request: pytest.FixtureRequest, before: str) -> None:
    line = http.client.HTTPConnection("127.0.0.1", request.getfixturevalue(before), timeout=60)
    body = chat("stream", stream=True) | {"model": "org/other"}
    line.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    answer = line.getresponse()
    times = [time.monotonic() for piece in answer if b'"content":"a"' in piece or b'"content":"b"' in piece]
    line.close()
    assert len(times) == 50
    assert times[-1] - times[0] > 0.6, "pieces came together that were 20 ms apart"


def test_what_names_no_conversation_stays_with_one_service(haproxy: int) -> None:
    assert len({told(haproxy, "GET", "/v1/models")[1]["x-served-by"] for _ in range(6)}) == 1
    tokens = [who(haproxy, {"model": "tiny", "prompt": [number, 1, 2]}, "/v1/completions") for number in range(6)]
    assert len(set(tokens)) == 1


def test_a_response_is_continued_where_it_is_kept(haproxy: int) -> None:
    for number in range(12):
        status, _, answer = told(haproxy, "POST", "/v1/responses", {"model": "tiny", "input": f"{number}"})
        first = json.loads(answer)
        name = first["output"][0]["content"][0]["text"]
        assert (status, first["id"][:13]) == (200, f"resp_{name}0000001")
        more = {"model": "tiny", "input": f"more {number}", "previous_response_id": first["id"]}
        assert who(haproxy, more, "/v1/responses") == name
        assert told(haproxy, "GET", f"/v1/responses/{first['id']}")[0] == 200
        assert told(haproxy, "GET", f"/v1/responses/{first['id']}/input_items?limit=5")[0] == 200
        assert told(haproxy, "DELETE", f"/v1/responses/{first['id']}")[0] == 200


def test_a_requests_id_is_the_same_in_the_proxy_and_in_the_service(haproxy: int) -> None:
    assert told(haproxy, "GET", "/v1/models", X_Request_Id="mine")[1]["x-request-id"] == "mine"
    assert len(told(haproxy, "GET", "/v1/models")[1]["x-request-id"]) == 36


class Streams(threading.Thread):
    """Answers of a second, one after the other, until :meth:`finish`; ``broken`` are those that were not whole."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__()
        self.names: list[str] = []
        self.broken: list[str] = []
        self._port, self._number, self._over = port, number, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.is_set():
            body = chat(f"stream {self._number}", stream=True) | {"model": "org/other"}
            try:
                status, _, answer = told(self._port, "POST", "/v1/chat/completions", body)
            except (OSError, http.client.HTTPException) as cut:
                status, answer = 0, repr(cut).encode()
            letters = [answer.count(b'"content":"%s"' % name) for name in (b"a", b"b")]
            if status == 200 and b"[DONE]" in answer and sorted(letters) == [0, 50]:
                self.names.append("a" if letters[0] else "b")
            else:
                self.broken.append(f"{status}: {letters} {answer[-300:]!r}")

    def finish(self) -> None:
        self._over.set()
        self.join()


def test_a_service_that_is_started_again_loses_nothing_and_gets_its_conversations_back(
    haproxy: int, replicas: list[Replica]
) -> None:
    sessions = [Session(haproxy, number) for number in range(16)]
    in_turns(sessions, 3)
    streams = [Streams(haproxy, number) for number in range(4)]
    time.sleep(0.5)
    restart = threading.Thread(target=lambda: (replicas[0].stop(), replicas[0].start(), replicas[0].ready()))
    restart.start()
    meanwhile = 0
    while restart.is_alive() or meanwhile < 4:
        in_turns(sessions, 1)
        meanwhile += 1
    until(lambda: all(it.is_home() for it in sessions), "the service is back")
    in_turns(sessions, 3)
    for stream in streams:
        stream.finish()
    assert [answer for it in sessions for answer in it.answers if answer not in {"a", "b"}] == []
    assert [broken for stream in streams for broken in stream.broken] == []
    assert {name for stream in streams for name in stream.names} == {"a", "b"}
    assert any(it.answers[0] == "a" and "b" in it.answers for it in sessions), "nobody had to go to the other one"
    both_up = [name == it.answers[0] for it in sessions for name in (*it.answers[:3], *it.answers[-3:])]
    assert sum(both_up) / len(both_up) >= 0.95


def test_a_service_that_is_taken_out_by_hand_still_has_what_it_keeps(haproxy: int, haproxys: Path) -> None:
    def control(words: str) -> None:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(haproxys / "switchyard.sock"))
            line.sendall(f"{words}\n".encode())
            assert line.recv(1000).strip() == b""

    asked = [{"model": "tiny", "input": f"{number}"} for number in range(12)]
    ids = [json.loads(told(haproxy, "POST", "/v1/responses", body)[2])["id"] for body in asked]
    kept = next(it for it in ids if it.startswith("resp_a"))
    control("set server services/a state drain")
    assert {who(haproxy, body, "/v1/responses") for body in asked} == {"b"}
    assert who(haproxy, {"model": "tiny", "input": "more", "previous_response_id": kept}, "/v1/responses") == "a"
    control("set server services/a state ready")
    assert {who(haproxy, body, "/v1/responses") for body in asked} == {"a", "b"}


def test_what_a_service_keeps_is_no_404_while_it_is_away(haproxy: int, replicas: list[Replica]) -> None:
    ids = {}
    for number in range(12):
        answer = json.loads(told(haproxy, "POST", "/v1/responses", {"model": "tiny", "input": f"{number}"})[2])
        ids[answer["output"][0]["content"][0]["text"]] = answer["id"]
    replicas[1].stop()
    until(lambda: told(haproxy, "GET", f"/v1/responses/{ids['b']}")[0] == 503, "the proxy knows")
    more = {"model": "tiny", "input": "more", "previous_response_id": ids["b"]}
    status, headers, body = told(haproxy, "POST", "/v1/responses", more)
    assert (status, headers["retry-after"], json.loads(body)["error"]["code"]) == (503, "5", "no_service")
    assert told(haproxy, "GET", f"/v1/responses/{ids['a']}")[0] == 200
    assert who(haproxy, chat("whoever is there")) == "a"
