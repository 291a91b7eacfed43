"""What ``switchyard doctor`` looks at, one function each. None changes anything."""

import asyncio
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec
import psutil
from msgspec import Struct

from app.cli.check.client_settings import installed, leads_elsewhere, led
from app.cli.check.models_here import directories, troubles
from app.cli.run import listen
from app.cli.run.exposure import is_loopback
from app.cli.run.welcome import base_url
from app.engine import native
from app.errors import SwitchyardError
from app.registry.budget import total_of
from app.schemas.models import Health
from app.settings import Settings
from app.settings.keys import read_keys
from app.settings.problem import SettingsProblem
from app.settings.sizes import format_size

Verdict = Literal["ok", "look", "bad"]
GIB = 1 << 30
SYSCTL = "/usr/sbin/sysctl"
LEFT_TO_OTHERS = 8 * GIB
"""Below which a Mac that has given the rest to its GPU becomes slow, or stops."""
OLDEST_MACOS = 14
PATIENCE = 2.0  # seconds for whoever has the port to say that it is a Switchyard
MOST_BYTES = 1 << 20
GAUGE = "from app.engine.mlx.memory import device; it = device(); print(it.memory, it.default_budget)"
"""What the service asks of MLX, for a process of its own: where MLX breaks, the doctor has to go on."""


class Finding(Struct, frozen=True):
    """One line. ``bad`` keeps the service from starting or answering; ``look`` does not."""

    what: str
    verdict: Verdict
    said: str


def findings(settings: Settings, models: Path) -> Iterator[Finding]:
    """Everything, the quick things first. ``models`` is the directory of the hub's cache."""
    yield _python()
    yield _backend()
    total = _device_bytes() if native.backend() is not None else None
    yield _memory(settings, total)
    if sys.platform == "darwin":
        yield _wired()
    if native.backend() == "cpu":
        yield _blas()
    yield _exposure(settings)
    yield _port(settings)
    yield _disk(models)
    yield from _models(settings, total)
    yield from _clients(settings)
    yield _hub(settings)


def _backend() -> Finding:
    name = native.backend()
    if name is None:
        return Finding("backend", "bad", "no MLX backend is installed; ./docker-free-run.sh installs one")
    return Finding("backend", "ok", name)


def _python() -> Finding:
    """Of macOS, its version; of Python, the machine it was built for, which on a Mac need not be this one."""
    version = platform.python_version()
    return _python_on_mac(version) if sys.platform == "darwin" else Finding("Python", "ok", version)


def _python_on_mac(version: str) -> Finding:
    system = platform.mac_ver()[0]
    if platform.machine() != "arm64":
        return Finding("Python", "bad", f"{version} for Intel: MLX needs one for Apple silicon (brew install python)")
    if int(system.partition(".")[0] or 0) < OLDEST_MACOS:
        return Finding("Python", "bad", f"{version} on macOS {system}: MLX needs macOS {OLDEST_MACOS} or newer")
    return Finding("Python", "ok", f"{version} on macOS {system}")


def _device_bytes() -> tuple[int, int] | None:
    """Bytes that MLX has for models, and how many they have by default; None if it cannot be asked."""
    done = subprocess.run([sys.executable, "-c", GAUGE], capture_output=True, text=True, check=False)  # noqa: S603
    numbers = done.stdout.split()
    return (int(numbers[0]), int(numbers[1])) if done.returncode == 0 and len(numbers) == 2 else None


def _memory(settings: Settings, asked: tuple[int, int] | None) -> Finding:
    """The budget as the service takes it. ``asked`` is what :func:`_device_bytes` gives."""
    machine, free = psutil.virtual_memory().total, psutil.virtual_memory().available
    said = f"{_gib(machine)}, of which {_gib(free)} are free"
    if asked is None:
        return Finding("memory", "bad", f"{said}; MLX does not say what it can have: it does not run here")
    device, default = asked
    budget = total_of(settings, device, default)
    said += f"; models can have {_gib(device)}, the budget is {_gib(budget)}"
    if budget > max(machine, device):
        return Finding("memory", "bad", f"{said}: lower memory_budget")
    if budget > device:
        return Finding("memory", "look", f"{said}, more than the GPU may use: lower memory_budget, or raise that limit")
    return Finding("memory", "ok" if free > budget / 4 else "look", said)


def _wired() -> Finding:
    """How much of the memory the GPU may use: its pages are wired, and nothing else has them meanwhile."""
    done = subprocess.run([SYSCTL, "-n", "iogpu.wired_limit_mb"], capture_output=True, check=False)  # noqa: S603
    limit = done.stdout.decode().strip()
    advice = (
        f"`sudo sysctl iogpu.wired_limit_mb=N` changes it until the next start; leave {_gib(LEFT_TO_OTHERS)} to others"
    )
    if not limit.isdigit() or limit == "0":
        return Finding("wired limit", "ok", f"the system's own, two thirds to three quarters of the memory; {advice}")
    left = psutil.virtual_memory().total - (int(limit) << 20)
    if left < LEFT_TO_OTHERS:
        return Finding("wired limit", "look", f"{limit} MiB, which leaves {_gib(max(0, left))} to all else; {advice}")
    return Finding("wired limit", "ok", f"{limit} MiB; {advice}")


def _gib(nbytes: float) -> str:
    return f"{nbytes / GIB:.1f} GiB"


def _blas() -> Finding:
    if native.openblas() is None:
        return Finding("BLAS", "look", f"missing: matrix products are 10 times slower; {native.how_to_install()}")
    native.prepare()
    slow = "" if native.gemv() is not None else "; single streams are slower for want of a C compiler (cc or $CC)"
    return Finding("BLAS", "ok", f"OpenBLAS{slow}")


def _exposure(settings: Settings) -> Finding:
    try:
        keys = read_keys(settings)
    except SettingsProblem as problem:
        return Finding("keys", "bad", str(problem))
    near = is_loopback(settings.host)
    if keys:
        secure = near or settings.tls_certificate is not None
        said = f"{len(keys)} keys" + ("" if secure else "; they travel unencrypted: set tls_certificate")
        return Finding("keys", "ok" if secure else "look", said)
    if near:
        return Finding("keys", "ok", f"none; only this machine reaches {settings.host}")
    if settings.open_to_network:
        return Finding("keys", "look", f"none, and {settings.host} is open to the network")
    return Finding("keys", "bad", f"none, and {settings.host} is open to the network: the service will not start")


def _port(settings: Settings) -> Finding:
    where = f"{settings.host}:{settings.port}"
    try:
        for sock in listen.open_all(settings.host, settings.port):
            sock.close()
    except OSError as failure:
        if _is_ours(settings):
            return Finding("port", "ok", f"a Switchyard serves at {where} already")
        return Finding("port", "look", listen.why_not(failure, settings.host, settings.port) + _holder(settings.port))
    return Finding("port", "ok", f"{where} is free")


def _is_ours(settings: Settings) -> bool:
    """Whether what answers at the address is a Switchyard; with TLS that is not looked at."""
    parts = urlsplit(base_url(settings.host, settings.port))
    line = HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        line.request("GET", "/health")
        msgspec.json.decode(line.getresponse().read(MOST_BYTES), type=Health)
    except (OSError, HTTPException, msgspec.DecodeError, UnicodeDecodeError):
        return False
    finally:
        line.close()
    return True


def _holder(port: int) -> str:
    """Which program has it; systems tell that of one's own programs only, or not at all."""
    with suppress(psutil.Error, OSError):
        for line in psutil.net_connections("tcp"):
            if line.status == psutil.CONN_LISTEN and line.laddr and line.laddr.port == port and line.pid:
                return f" (process {line.pid}, {psutil.Process(line.pid).name()})"
    return ""


def _models(settings: Settings, asked: tuple[int, int] | None) -> Iterator[Finding]:
    """How many are here, and each that will not load."""
    try:
        places = directories(settings)
    except (SwitchyardError, OSError) as failure:
        yield Finding("models", "look", str(failure))
        return
    budget = None if asked is None else total_of(settings, *asked)
    bad = dict(troubles(places, budget))
    yield Finding("models", "ok", f"{len(places) - len(bad)} of {len(places)} on this machine should load")
    for model, why in bad.items():
        yield Finding("model", "look", f"{model}: {why}")


def _clients(settings: Settings) -> Iterator[Finding]:
    """What ``launch`` can start, and settings that lead to another port of this machine."""
    found = installed()
    yield Finding("clients", "ok", f"{', '.join(found) or 'none'} can be started with launch")
    for where, url in led(Path.home(), os.environ):
        elsewhere = leads_elsewhere(url, settings.port)
        said = f"{where} leads to {url}" + (f", this service is at port {settings.port}" if elsewhere else "")
        yield Finding("client", "look" if elsewhere else "ok", said)


def _disk(models: Path) -> Finding:
    place = next((it for it in (models, *models.parents) if it.exists()), Path("/"))
    if not os.access(place, os.W_OK):
        return Finding("disk", "bad", f"{place} cannot be written; models are kept there")
    free = shutil.disk_usage(place).free
    said = f"{format_size(free // GIB * GIB) if free >= GIB else format_size(free)} free for models in {models}"
    return Finding("disk", "ok" if free > 20 * GIB else "look", said)


def _hub(settings: Settings) -> Finding:
    if settings.offline:
        return Finding("hub", "ok", "not asked: offline")
    url = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not url.startswith(("https://", "http://")):
        return Finding("hub", "bad", "HF_ENDPOINT is no address")
    try:
        asyncio.run(_ask_hub())
    except SwitchyardError as failure:
        return Finding("hub", "look", f"{failure.message} Models on disk are served all the same.")
    return Finding("hub", "ok", url)


async def _ask_hub() -> None:
    """With the client, the certificates and the proxies of a download."""
    from app.registry.hub import Hub  # noqa: PLC0415  slow to import

    hub = Hub()
    try:
        await hub.ask()
    finally:
        await hub.close()
