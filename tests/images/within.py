#!/usr/bin/env python3
"""A runtime for a container engine: runc, without the capabilities that this machine's root lacks.

A privileged container is given all that the kernel knows, and runc fails where it may not give one.
"""

import json
import os
import sys
from pathlib import Path

#: By their numbers, from 0.
_NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
    "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
    "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
    "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)  # fmt: skip


def ours() -> set[str]:
    """What this process may give."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    mask = int(next(line for line in status if line.startswith("CapBnd:")).split()[1], 16)
    return {f"CAP_{name}" for number, name in enumerate(_NAMES) if mask >> number & 1}


def narrow(file: Path, *, whole: bool) -> None:
    """Leave only those in a container's description, or in that of one more process in it."""
    document = json.loads(file.read_text(encoding="utf-8"))
    process = document["process"] if whole else document
    allowed = ours()
    sets = process.get("capabilities") or {}
    process["capabilities"] = {kind: [one for one in given if one in allowed] for kind, given in sets.items()}
    file.write_text(json.dumps(document), encoding="utf-8")


if __name__ == "__main__":
    told = sys.argv[1:]
    if "--bundle" in told:
        narrow(Path(told[told.index("--bundle") + 1]) / "config.json", whole=True)
    if "--process" in told:
        narrow(Path(told[told.index("--process") + 1]), whole=False)
    os.execvp("runc", ["runc", *told])  # noqa: S606
