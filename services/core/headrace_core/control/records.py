"""What the control plane tells: events, model versions, runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from headrace_core.contracts import Millis


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened and that rules may react to.

    Attributes:
        offset: dense number in commit order, from 1.
        key: what it is about.
        value: what is said of it.
        type: kind of event.
        version: how many events of this key came before, plus one.
        namespace: "default" unless told.
        sender: who sent it.
        create_time: when the service took it, ms since the epoch.
        context: anything else.
    """

    offset: int
    key: str
    value: str
    type: str
    version: int
    namespace: str
    sender: str
    create_time: Millis
    context: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Read it from an answer."""
        return cls(**{name: body[name] for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events of one read.

    Attributes:
        items: oldest first.
        next: the offset to go on after; it moves also past events that a filter left out.
    """

    items: Sequence[Event]
    next: int


@dataclass(frozen=True, slots=True)
class Parent:
    """The version that another one stands on."""

    model: str
    version: int


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered version of a model.

    Attributes:
        stage: GENERATED, VALIDATED, REJECTED, DEPLOYED, DEPRECATED or DELETED.
        track: of a deployed version, "stable" unless told.
        parent: what it stands on, None for one trained from nothing.
        artifact: URL of its folder.
        manifest: as the trainer wrote it.
        metrics: by name, told at its registration; None for one that is no number.
        history: `{"stage", "time", "by", "why", "details"}` for each change, oldest first.
    """

    model: str
    version: int
    stage: str
    track: str
    parent: Parent | None
    artifact: str
    manifest: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    history: Sequence[Mapping[str, Any]]

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Read it from an answer."""
        known = {name: body[name] for name in cls.__slots__}
        return cls(**(known | {"parent": Parent(**body["parent"]) if body["parent"] else None}))


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a task.

    Attributes:
        service: the resident service that works on it; "" when a process is started for it.
        command: argument vector.
        status: INIT, QUEUED, STARTING, RUNNING, STOPPING, STOPPED, SUCCEEDED, FAILED or RETRYING.
        attempt: from 1.
        cause: `{"rule": name, "events": [{"offset", "key", "value", "type", "create_time"}, …]}`.
        created_at, started_at, ended_at: ms since the epoch; None when it has not come to that.
        result: what the command told, its last line of JSON.
        error: why it failed.
    """

    run_id: str
    workflow: str
    task: str
    service: str
    command: Sequence[str]
    status: str
    attempt: int
    cause: Mapping[str, Any]
    created_at: Millis
    started_at: Millis | None
    ended_at: Millis | None
    result: Mapping[str, Any]
    error: str

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Read it from an answer."""
        return cls(**{name: body[name] for name in cls.__slots__})
