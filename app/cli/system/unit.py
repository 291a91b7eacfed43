"""The descriptions from which systemd and launchd run the service: text in, text out."""

import plistlib
import sys
from collections.abc import Mapping
from pathlib import Path

from app.cli.exits import Exit

LABEL = "io.github.switchyard"
NEVER_AGAIN = (Exit.USAGE, Exit.PORT_TAKEN, Exit.NO_BACKEND)
"""Ends that starting again does not mend."""
LAUNCHED = "_SWITCHYARD_LAUNCHED"
"""Set where launchd runs the service, to the file that its words go to; see :mod:`app.cli.run.launched`."""
KEPT = (
    *("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)
"""What a shell may know of the hub and the way to it. Not ``HF_TOKEN``: a secret belongs into a file of its own."""


def kept(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a service takes over from the shell that installs it."""
    return {name: environ[name] for name in KEPT if environ.get(name)}


def command(config: Path | None) -> list[str]:
    """What is run: this very Python, so that the service is the one that was installed."""
    return [sys.executable, "-m", "app", "serve", *(() if config is None else ("--config", str(config)))]


def systemd(config: Path | None, *, grace: float, environ: Mapping[str, str]) -> str:
    """A hardened unit for ``systemctl --user``; ``environ`` are the variables it sets.

    The file system is read-only but for caches, nothing gains rights, and only what servers call may be called. Memory
    that is written and run stays allowed: CUDA compiles its kernels.
    """
    words = " ".join(_quoted(word).replace("$", "$$") for word in command(config))
    places = ["%h/.cache", *(_quoted(environ[name])[1:-1] for name in ("HF_HOME", "HF_HUB_CACHE") if name in environ)]
    variables = "".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in environ.items())
    return f"""[Unit]
Description=Switchyard, a server for language models
After=network.target
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=exec
{variables}ExecStart={words}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
RestartPreventExitStatus={" ".join(str(int(code)) for code in NEVER_AGAIN)}
TimeoutStopSec={int(grace) + 15}
KillMode=mixed
OOMPolicy=continue
LimitNOFILE=65536
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={" ".join(f'"-{place}"' for place in places)}
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=default.target
"""


def launchd(config: Path | None, *, grace: float, log: Path, environ: Mapping[str, str], session: str) -> str:
    """An agent of one user, for a ``session`` with a screen (Aqua) or for one without (Background).

    It is started again when it ends with any code but 0; what starting again does not mend ends with 0 there.
    """
    entries = {
        "Label": LABEL,
        "ProgramArguments": command(config),
        "EnvironmentVariables": {**environ, LAUNCHED: str(log)},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "LimitLoadToSessionType": session,
        "ThrottleInterval": 10,
        "ExitTimeOut": int(grace) + 15,
        "ProcessType": "Interactive",
        "Umask": 0o077,
        "SoftResourceLimits": {"NumberOfFiles": 65536},
        "StandardOutPath": str(log),
        "StandardErrorPath": str(log),
    }
    return plistlib.dumps(entries).decode()


def _quoted(word: str) -> str:
    """A word as systemd reads it: its specifiers and escapes stand for themselves."""
    return '"{}"'.format(word.replace("\\", "\\\\").replace("%", "%%").replace('"', '\\"'))
