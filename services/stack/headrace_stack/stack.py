"""Starts the parts in order by health, and ends them."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any, Final

from headrace_stack import services as service_module
from headrace_stack.control import Control, KeeperAwayError
from headrace_stack.initialise import Initialisation
from headrace_stack.keeper import write_json
from headrace_stack.layout import Layout, StackError
from headrace_stack.part import Part
from headrace_stack.ports import PortBook
from headrace_stack.services import (
    SERVICES,
    addresses,
    apply_workflows,
    lay_definitions,
    second_port,
    service_names,
    service_part,
    settings,
)
from headrace_stack.stores import kafka, postgres, valkey

_READY_SECONDS: Final = 90.0
_POLL_SECONDS: Final = 0.05
#: A part that was started anew so many times before it was ready will not become so.
_RESTARTS: Final = 3
_STORES: Final[dict[str, ModuleType]] = {"kafka": kafka, "postgres": postgres, "valkey": valkey}
#: Setting that names a store of the caller's own, which is then not started.
_ADDRESS_OF: Final = {"kafka": "HEADRACE_KAFKA", "postgres": "HEADRACE_POSTGRES", "valkey": "HEADRACE_REDIS"}


class NotReadyError(StackError):
    """A part did not come up; the message ends with its last log lines."""


@dataclass(slots=True)
class Stack:
    """One embedded stack.

    Attributes:
        layout: its folder.
        profile: name of a set of settings; None for the default, or whatever runs already.
        workers: replicas by service.
        services: which services run beside the stores; None for all, or whatever runs already.
        progress: told what happens, in words.
    """

    layout: Layout
    profile: str | None = None
    workers: Mapping[str, int] = field(default_factory=dict)
    services: tuple[str, ...] | None = None
    progress: Callable[[str], None] = lambda _: None
    _control: Control = field(init=False)
    _given_up: Event = field(init=False, default_factory=Event)

    def __post_init__(self) -> None:
        """Bind the keeper's control to the folder."""
        self._control = Control(self.layout)

    def up(self) -> dict[str, Any]:
        """Start the stack and wait until everything is ready; the content of stack.json. On any failure nothing is left.

        A stack that is up stays as it is.

        Raises:
            NotReadyError: a part did not come up.
            StackError: something is missing or in the way.
        """
        with self.layout.locked(f"another `headrace` is at work in {self.layout.home}: waiting for it"):
            if self.is_up():
                self.progress("already up")
                self._refuse_other_wishes()
                self._wait_for_all()
                return self.describe()
            self._end()  # what a start that was killed may have left
            try:
                return self._start()
            except BaseException:
                self._end()
                raise

    def down(self) -> None:
        """End every process of the stack, the keeper's way or by pid; returns when all are gone."""
        if not self.layout.home.exists():
            return
        with self.layout.locked(f"another `headrace` is at work in {self.layout.home}: waiting for it"):
            self._end()

    def wipe(self) -> None:
        """End the stack and remove its data; ports and definitions stay."""
        with self.layout.locked(f"another `headrace` is at work in {self.layout.home}: waiting for it"):
            self._end()
            self.layout.wipe()

    def is_up(self) -> bool:
        """Whether the stack was started, was ready then, and its keeper lives."""
        return self.layout.ready_mark.exists() and self._control.answers()

    def describe(self) -> dict[str, Any]:
        """Content of stack.json.

        Raises:
            StackError: the stack is not up.
        """
        try:
            content: dict[str, Any] = json.loads(self.layout.stack_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StackError(f"no stack runs in {self.layout.home}: start one with `headrace up`") from None
        return content

    def start(self, name: str) -> None:
        """Start one part again after `stop`."""
        self._control.start(name)

    def stop(self, name: str) -> None:
        """Stop one part, gently, until `start`."""
        self._control.stop(name)

    def pid(self, name: str) -> int:
        """Process id of one part.

        Raises:
            StackError: it does not run.
        """
        pid = self._control.pid(name)
        if pid is None:
            raise StackError(f"{name} does not run")
        return pid

    def wait_ready(self, name: str) -> None:
        """Wait until one part is ready again.

        Raises:
            NotReadyError: it did not come up.
        """
        self._wait(next(part for part in self._parts() if part.name == name))

    def statuses(self) -> Iterator[dict[str, Any]]:
        """Service, replica, pid, state (ready, running or stopped), metrics address and log of each part."""
        for part in self._parts():
            pid = self._control.pid(part.name)
            state = "stopped" if pid is None else "ready" if _is_ready(part) else "running"
            yield {"service": part.service, "replica": part.replica, "pid": pid, "state": state,
                   "metrics": part.metrics, "log": str(self.layout.logs / f"{part.name}.log")}  # fmt: skip

    def _start(self) -> dict[str, Any]:
        self.layout.make(self.profile or "default")
        plan, told = self._make_plan()
        stores = [part for part in map(_from_json, plan["parts"]) if part.service in _STORES]
        others = [part for part in map(_from_json, plan["parts"]) if part.service not in _STORES]
        self._put_logs_aside()
        write_json(self.layout.plan, plan)
        self._control.start_keeper()
        initialising = Initialisation(os.environ | told)
        try:
            self._start_stores_and_initialise(stores, initialising)
        finally:
            initialising.end()
        for part in others:
            self._control.start(part.name)
        for part in others:
            self.progress(f"waiting for {part.name}")
            self._wait(part)
        if "control" in plan["addresses"]:
            self.progress("applying workflows")
            apply_workflows(Path(told["HEADRACE_DEFINITIONS"]), plan["addresses"]["control"])
        return self._declare_ready()

    def _start_stores_and_initialise(self, stores: list[Part], initialising: Initialisation) -> None:
        self.progress(f"starting {', '.join(p.name for p in stores)}")
        self._start_stores(stores)
        self.progress("applying migrations and topics")
        failure = initialising.failure()
        if failure:
            raise NotReadyError(f"headrace-init failed: {failure}")
        self._wait_for_keeper()

    def _make_plan(self) -> tuple[dict[str, Any], dict[str, str]]:
        """What the keeper is to keep, and the settings of all services."""
        environment = dict(os.environ)
        ours = [store for store, variable in _ADDRESS_OF.items() if not environment.get(variable)]
        names = service_names(tuple(SERVICES) if self.services is None else self.services, self.workers)
        second = [port for name in names if (port := second_port(name)) is not None]
        asked = [*ours, *(["kafka-controller"] if "kafka" in ours else []), *names, *second]
        ports = PortBook(self.layout.ports, self.layout.home).choose(asked, environment)
        where = addresses(self.layout, ports, environment)
        profile = self.profile or "default"
        told = settings(self.layout, profile, where, environment)
        lay_definitions(self.layout, profile)
        parts: list[Part] = []
        if "kafka" in ours:
            parts.append(kafka.part(self.layout, ports["kafka"], ports["kafka-controller"]))
        if "postgres" in ours:
            parts.append(postgres.part(self.layout, ports["postgres"]))
        if "valkey" in ours:
            parts.append(valkey.part(self.layout, ports["valkey"]))
        parts += [service_part(name, ports, told) for name in names]
        where = {**where, "definitions": told["HEADRACE_DEFINITIONS"]}
        return {"profile": profile, "addresses": where, "parts": [part.to_json() for part in parts]}, told

    def _start_stores(self, stores: list[Part]) -> None:
        self._given_up.clear()
        with ThreadPoolExecutor(max(1, len(stores))) as pool:
            try:
                for done in [pool.submit(self._start_store, part) for part in stores]:
                    done.result()
            except BaseException:
                self._given_up.set()  # the pool's end waits for the others, which wait for stores that no one wants now
                raise

    def _start_store(self, part: Part) -> None:
        _STORES[part.service].prepare(self.layout)
        self._wait_for_keeper()
        self._control.start(part.name)
        self._wait(part)

    def _wait_for_keeper(self) -> None:
        try:
            self._control.wait_for_keeper()
        except KeeperAwayError as error:
            raise NotReadyError(f"{error}:\n{self._tail('keeper')}") from None

    def _declare_ready(self) -> dict[str, Any]:
        self.layout.ready_mark.touch()
        deadline = time.monotonic() + 10
        while not self.layout.stack_file.exists():
            if time.monotonic() > deadline:
                raise NotReadyError(f"the process manager did not write stack.json:\n{self._tail('keeper')}")
            time.sleep(0.01)
        return self.describe()

    def _end(self) -> None:
        self.layout.ready_mark.unlink(missing_ok=True)
        has_services = any(part.service not in _STORES for part in self._parts())
        self._control.end("*-[0-9]*" if has_services else "")
        self.layout.stack_file.unlink(missing_ok=True)
        if self.layout.sockets != self.layout.home and self.layout.sockets.exists():
            self.layout.sockets.rmdir()

    def _refuse_other_wishes(self) -> None:
        plan = json.loads(self.layout.plan.read_text(encoding="utf-8"))
        runs: dict[str, int] = {}
        for part in map(_from_json, plan["parts"]):
            if part.service not in _STORES:
                runs[part.service] = max(runs.get(part.service, 0), part.replica + 1)
        other_profile = self.profile not in {None, plan["profile"]}
        other_workers = any(runs.get(service) != count for service, count in self.workers.items())
        if other_profile or other_workers or (self.services is not None and set(self.services) != set(runs)):
            told = " ".join(f"{service}={count}" for service, count in runs.items())
            raise StackError(
                f"a stack with other parts is up (profile {plan['profile']}, {told or 'stores only'}): "
                "`headrace down` ends it"
            )

    def _wait_for_all(self) -> None:
        for part in self._parts():
            self._wait(part)

    def _wait(self, part: Part) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        most = self._control.starts(part.name) + _RESTARTS
        while not _is_ready(part):
            now = time.monotonic()
            if self._given_up.is_set():
                raise NotReadyError(f"{part.name} is no longer waited for")
            if self._control.starts(part.name) > most:
                raise NotReadyError(f"{part.name} keeps ending:\n{self._tail(part.name)}")
            if now > deadline:
                raise NotReadyError(f"{part.name} was not ready after {_READY_SECONDS:.0f} s:\n{self._tail(part.name)}")
            time.sleep(_POLL_SECONDS)

    def _parts(self) -> list[Part]:
        """Parts of the stack that runs, or ran last."""
        try:
            plan = json.loads(self.layout.plan.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        return [_from_json(part) for part in plan["parts"]]

    def _put_logs_aside(self) -> None:
        """Keep the logs of one earlier run; what is shown of a failed start is of this start."""
        for log in self.layout.logs.glob("*.log"):
            log.replace(log.with_suffix(".log.1"))

    def _tail(self, name: str, lines: int = 15) -> str:
        log = self.layout.logs / f"{name}.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        return "\n".join(text.splitlines()[-lines:]) or f"({name} logged nothing)"


def _from_json(part: dict[str, Any]) -> Part:
    return Part(**part)


def _is_ready(part: Part) -> bool:
    store = _STORES.get(part.service, service_module)
    return bool(store.ready(part.port))
