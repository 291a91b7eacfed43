"""The descriptions from which systemd and launchd run the service: text in, text out."""

import plistlib
import sys
from pathlib import Path

from app.cli.exits import Exit

LABEL = "io.github.switchyard"
NEVER_AGAIN = (Exit.USAGE, Exit.PORT_TAKEN, Exit.NO_BACKEND)
"""Ends that starting again does not mend."""


def command(config: Path | None) -> list[str]:
    """What is run: this very Python, so that the service is the one that was installed."""
    return [sys.executable, "-m", "app", "serve", *(() if config is None else ("--config", str(config)))]


def systemd(config: Path | None, *, grace: float) -> str:
    """A hardened unit for ``systemctl --user``.

    The file system is read-only but for caches, nothing gains rights, and only what servers call may be called. Memory
    that is written and run stays allowed: CUDA compiles its kernels.
    """
    words = " ".join('"{}"'.format(word.replace("%", "%%").replace('"', '\\"')) for word in command(config))
    return f"""[Unit]
Description=Switchyard, a server for language models
After=network.target
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=exec
ExecStart={words}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
RestartForceExitStatus={int(Exit.ENGINE_LOST)}
RestartPreventExitStatus={" ".join(str(int(code)) for code in NEVER_AGAIN)}
TimeoutStopSec={int(grace) + 15}
KillMode=mixed
LimitNOFILE=65536
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths=-%h/.cache
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


def launchd(config: Path | None, *, grace: float, log: Path) -> str:
    """A launch agent of the user who is logged in."""
    told = {
        "Label": LABEL,
        "ProgramArguments": command(config),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": int(grace) + 15,
        "ProcessType": "Interactive",
        "Umask": 0o077,
        "SoftResourceLimits": {"NumberOfFiles": 65536},
        "StandardOutPath": str(log),
        "StandardErrorPath": str(log),
    }
    return plistlib.dumps(told).decode()
