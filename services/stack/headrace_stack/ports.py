"""Loopback ports: the same at every start of a stack, below those that the system gives to outgoing connections."""

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from headrace_stack.layout import StackError
from headrace_stack.part import LOOPBACK

#: Above the registered ones that people use, below Linux's ephemeral range (32768 and up): a restarted service finds
#: its port free, whatever connections were opened meanwhile.
_FIRST: Final = 20_000
_LAST: Final = 32_000
_APART: Final = 24


def is_free(port: int) -> bool:
    """Whether a server could listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def given_ports(environment: Mapping[str, str], names: Sequence[str]) -> dict[str, int]:
    """Ports that the caller asks for, by part: HEADRACE_PORT_GATEWAY, HEADRACE_PORT_SAMPLE_JOINER_1, HEADRACE_PORT_KAFKA.

    HEADRACE_GATEWAY_PORT, the gateway's own setting, means the same as HEADRACE_PORT_GATEWAY.

    Raises:
        StackError: one is no port, or two are the same.
    """
    ports: dict[str, int] = {}
    for name in names:
        variable, text = _given(environment, name)
        if text is None:
            continue
        if not text.isdigit() or not 0 < int(text) < 65_536:
            raise StackError(f"{variable}={text}: want a port, 1 to 65535")
        if int(text) in ports.values():
            raise StackError(f"{variable}={text}: another part was given this port")
        ports[name] = int(text)
    return ports


def _given(environment: Mapping[str, str], name: str) -> tuple[str, str | None]:
    service, _, replica = name.rpartition("-")
    plain = service if replica == "0" else name
    variables = [f"HEADRACE_PORT_{plain.upper().replace('-', '_')}"]
    if plain == "gateway":
        variables.append("HEADRACE_GATEWAY_PORT")
    found = [(v, environment[v]) for v in variables if environment.get(v)]
    return found[0] if found else (variables[0], None)


@dataclass(slots=True)
class PortBook:
    """Ports of one stack's parts, remembered in a file.

    Attributes:
        file: where they are written down.
        home: the stack's folder; two stacks begin to look at different places.
        is_free: whether a server could listen on a port.
        taken: ports that are given away.
    """

    file: Path
    home: Path
    is_free: Callable[[int], bool] = is_free
    taken: set[int] = field(default_factory=set)

    def choose(self, names: Sequence[str], environment: Mapping[str, str]) -> dict[str, int]:
        """A port for each part: the asked one, else the one of the last start if it is free, else a free one.

        Raises:
            StackError: an asked port is taken.
        """
        given = given_ports(environment, names)
        for name, port in given.items():
            if not self.is_free(port):
                raise StackError(f"port {port} for {name} is taken: free it, or unset {_given(environment, name)[0]}")
        self.taken.update(given.values())
        known: dict[str, int] = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        chosen = dict(given)
        for name in names:  # what can stay does, before anything new is looked for
            last = known.get(name)
            if name not in chosen and last is not None and last not in self.taken and self.is_free(last):
                chosen[name] = last
                self.taken.add(last)
        free = self._free(set(known.values()))
        chosen |= {name: next(free) for name in names if name not in chosen}
        self.taken.update(chosen.values())
        self.file.write_text(json.dumps({**known, **chosen}, indent=2) + "\n", encoding="utf-8")
        return chosen

    def _free(self, known: set[int]) -> Iterator[int]:
        places = (_LAST - _FIRST) // _APART
        digest = hashlib.sha256(os.fsencode(self.home)).digest()
        first = _FIRST + int.from_bytes(digest[:4], "big") % places * _APART
        for port in (*range(first, _LAST), *range(_FIRST, first)):
            if port not in self.taken and port not in known and self.is_free(port):
                yield port
        raise StackError(f"no free port between {_FIRST} and {_LAST}")
