"""A model's ranks: how many there are and where, what each is started with, and how they end together."""

import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from app.engine.client.environment import OFFLINE, environment
from app.engine.client.watchdog import cause
from app.engine.facts import DeviceFacts
from app.engine.host.setup import Setup
from app.engine.ranks import FAILED, FROZEN, GONE, HERE, Backend, RankHost, Ranks, Seat
from app.errors import ModelUnusable, Unavailable

RING_PORT, NCCL_PORT = 32323, 12345
"""The first port of a ring over hosts, one more for each address, and NCCL's: mlx.launch's own defaults."""
UNCAPTURED = "MLX_USE_CUDA_GRAPHS"
"""Where this variable is 0, MLX launches its kernels one by one. A sum of NCCL's that is captured into a CUDA graph
costs more than its launch; 64 streams decode twice as fast without (docs/distributed.md).
"""
SSH_FAILED = 255
"""ssh's exit code for an error of its own."""


class Ended(Protocol):
    """Who hears of the end of ranks."""

    def __call__(self, cause: str, *, by_itself: bool) -> None:
        """One has ended, and why; any thread."""


class HostFile(Struct, frozen=True):
    """The file that ``mlx.launch --hostfile`` takes, as far as it says where ranks are; it may be the list alone."""

    hosts: Annotated[tuple[RankHost, ...], Meta(min_length=2)]
    backend: Backend | None = None
    envs: tuple[str, ...] = ()


class Plan(Struct, frozen=True):
    """What a group is started with. ``ports`` are those that its processes may use, None: the network."""

    hosts: tuple[RankHost, ...]
    seats: tuple[Seat, ...]
    door: socket.socket
    ports: tuple[int, ...] | None

    @property
    def remote(self) -> bool:
        """Whether there are other hosts."""
        return any(host.ssh not in HERE for host in self.hosts[1:])


def plan(ranks: Ranks, device: DeviceFacts | None) -> Plan:
    """Who is started where, for a model that is divided so; ``device`` is what this machine computes on.

    Raises :class:`app.errors.ModelUnusable` for a host file that cannot be used, and says why.
    """
    on_cuda = device is not None and device.kind == "cuda"
    here = RankHost(HERE[0], (HERE[0],))
    file = HostFile((here,) * ranks.count) if ranks.hosts is None else _read(ranks.hosts)
    hosts, size = file.hosts, len(file.hosts)
    backend = file.backend or ("nccl" if on_cuda else "ring")
    local = all(host.ssh in HERE for host in hosts)
    variables, files, ports = _backend(backend, hosts, local=local, ranks=ranks)
    address = hosts[0].ips[0] if hosts[0].ips else HERE[0]
    try:
        door = socket.create_server((address, 0))
    except OSError as failure:
        why = f"its first host must be this machine, which has no address {address}: {failure}"
        raise _wrong(ranks, why) from failure
    variables |= dict(it.partition("=")[::2] for it in file.envs)
    secret, beside = secrets.token_hex(32), ranks.spread(one_memory=not on_cuda)[1]
    names = tuple(f"rank {rank}" + ("" if host.ssh in HERE else f" ({host.ssh})") for rank, host in enumerate(hosts))
    seats = []
    for rank in range(size):
        own = variables | {"MLX_RANK": str(rank)}
        if on_cuda:
            own["CUDA_VISIBLE_DEVICES"] = str(sum(it.ssh == hosts[rank].ssh for it in hosts[:rank]))
        where: int | tuple[str, int] = door.fileno() if rank == 0 else (address, door.getsockname()[1])
        seats.append(Seat(rank, size, backend, secret, own, files, where, beside if rank == 0 else 1, 0, names))
    return Plan(hosts, tuple(seats), door, None if ports is None else (*ports, door.getsockname()[1]))


def _read(name: str) -> HostFile:
    path = Path(name).expanduser()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(content if isinstance(content, dict) else {"hosts": content}, HostFile)
    except (OSError, ValueError, msgspec.ValidationError) as failure:
        raise _wrong(Ranks(hosts=name), str(failure)) from failure


def _wrong(ranks: Ranks, why: str) -> ModelUnusable:
    return ModelUnusable(
        f"The model's ranks cannot be started by {ranks.hosts or 'this machine'}: {why}.", param="model"
    )


def _backend(
    backend: Backend, hosts: tuple[RankHost, ...], *, local: bool, ranks: Ranks
) -> tuple[dict[str, str], dict[str, str], tuple[int, ...] | None]:
    """Variables and files that MLX's backend reads, as mlx.launch makes them, and the ports that it uses alone."""
    if backend != "ring" and not hosts[0].ips:
        raise _wrong(ranks, f"{backend} needs an address (ips) of the first host")
    if backend == "nccl":
        port = free_ports(1)[0] if local else NCCL_PORT
        variables = {"NCCL_HOST_IP": hosts[0].ips[0], "NCCL_PORT": str(port), "MLX_WORLD_SIZE": str(len(hosts))}
        variables[UNCAPTURED] = os.environ.get(UNCAPTURED, "0")
        return variables, {}, None
    if backend == "ring":
        if not all(host.ips for host in hosts):
            raise _wrong(ranks, "the ring needs addresses (ips) of every host")
        count = sum(len(host.ips) for host in hosts)
        ports = free_ports(count) if local else tuple(range(RING_PORT, RING_PORT + count))
        left = iter(ports)
        ring = [[f"{ip}:{next(left)}" for ip in host.ips] for host in hosts]
        return {}, {"MLX_HOSTFILE": json.dumps(ring)}, ports if local else None
    if any(len(host.rdma) != len(hosts) or host.rdma[rank] is not None for rank, host in enumerate(hosts)):
        raise _wrong(ranks, "jaccl needs an RDMA device (rdma) from every host to every other, null to itself")
    variables = {"MLX_JACCL_COORDINATOR": f"{hosts[0].ips[0]}:{RING_PORT}"}
    if backend == "jaccl-ring":
        variables["MLX_JACCL_RING"] = "1"
    return variables, {"MLX_IBV_DEVICES": json.dumps([host.rdma for host in hosts])}, None


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of this machine that nobody uses now."""
    taken = [socket.create_server((HERE[0], 0)) for _ in range(count)]
    ports = tuple(it.getsockname()[1] for it in taken)
    for it in taken:
        it.close()
    return ports


class Followers:
    """The ranks beside rank 0, each a process of this machine or an ssh to another.

    ``leader`` is the process of rank 0. ``ended`` is called, on any thread, for each that ends before that is wanted
    (``ending``): why, and whether it ended by itself or because of what it saw of rank 0.
    """

    def __init__(self, plan: Plan, setup: Setup, ended: Ended, leader: int) -> None:
        self._plan = plan
        self._ended = ended
        self.ending = False
        self._processes: list[subprocess.Popen[bytes]] = []
        for seat, host in zip(plan.seats[1:], plan.hosts[1:], strict=True):
            process = self._start(setup, host.ssh)
            self._processes.append(process)
            hand(process, replace(seat, leader=leader if host.ssh in HERE else 0))
            threading.Thread(target=self._wait, args=(seat, process), name=f"rank-{seat.rank}", daemon=True).start()

    def _start(self, setup: Setup, host: str) -> "subprocess.Popen[bytes]":
        if host in HERE:
            return subprocess.Popen(_command(setup), stdin=subprocess.PIPE, env=environment())  # noqa: S603  our own program
        words = [
            *(f"{name}={value}" for name, value in (OFFLINE | _path()).items()),
            *_command(replace(setup, parent=0)),
        ]
        script = f"cd {shlex.quote(str(Path.cwd()))} && exec env {shlex.join(words)}"
        if shutil.which("ssh") is None:
            raise Unavailable(f"{host} cannot be reached: there is no ssh on this machine. Install it.")
        ssh = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", host, script]
        return subprocess.Popen(ssh, stdin=subprocess.PIPE)  # noqa: S603  the host is the operator's, the words are quoted

    def join(self) -> None:
        """Wait until all are gone; not on the event loop."""
        for process in self._processes:
            process.wait()

    def end(self) -> None:
        """Kill those that are left; safe to call twice."""
        self.ending = True
        for process in self._processes:
            with suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()
            process.kill()

    def _wait(self, seat: Seat, process: "subprocess.Popen[bytes]") -> None:
        code = process.wait()
        if not self.ending:
            self._ended(self._why(seat, code), by_itself=code not in {FROZEN, GONE})

    def _why(self, seat: Seat, code: int) -> str:
        name = seat.names[seat.rank]
        if code == SSH_FAILED and self._plan.hosts[seat.rank].ssh not in HERE:
            return f"{name} cannot be reached by ssh"
        causes = {
            FROZEN: "rank 0 was silent for too long",
            GONE: f"{name} has lost its connection to rank 0",
            FAILED: f"{name} failed; the log says more",
        }
        return causes.get(code) or f"{name}: {cause(code, sys.maxsize)}"


def hand(process: "subprocess.Popen[bytes]", seat: Seat) -> None:
    """Give a process its seat, over the pipe that nobody else sees."""
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.write(msgspec.json.encode(seat) + b"\n")
            process.stdin.flush()


def _command(setup: Setup) -> list[str]:
    return [sys.executable, "-P", "-m", "app.engine.host.follow", msgspec.json.encode(setup).decode()]


def _path() -> dict[str, str]:
    """Where this very package is, on every host."""
    return {"PYTHONPATH": str(Path(__file__).parents[3])}
