"""What is answered, as the page of the API shows it. Answers are written as bytes; tests hold them against these."""

from typing import Any, Generic, Literal, TypeVar

from headrace_core.contracts import Millis
from pydantic import BaseModel, ConfigDict, Field

from headrace_control_plane.web.schema import Stage

Item = TypeVar("Item")
Status = Literal["INIT", "QUEUED", "STARTING", "RUNNING", "STOPPING", "STOPPED", "SUCCEEDED", "FAILED", "RETRYING"]


class Told(BaseModel):
    """An answer, whole."""

    model_config = ConfigDict(extra="forbid")


class Page(Told, Generic[Item]):
    """Part of a list."""

    items: list[Item]
    next: int | None = Field(description="Where the list goes on: the next call's `before`; null at its end.")


class Offset(Told):
    """Place of an event."""

    offset: int


class EventTold(Told):
    """An event."""

    offset: int
    key: str
    value: str
    type: str
    version: int = Field(description="Of the key, from 1.")
    namespace: str
    sender: str
    create_time: Millis
    context: dict[str, Any]


class Events(Told):
    """Events of one read."""

    items: list[EventTold]
    next: int = Field(description="The offset to go on after; it moves also past events that a filter left out.")


class ModelTold(Told):
    """A model."""

    model: str
    reserved: int = Field(description="The newest version number that was given out.")
    newest: int | None
    versions: int
    deployed: dict[str, int] = Field(description="The deployed version of each track.")


class Reserved(Told):
    """A version number that nobody else gets."""

    version: int


class ParentTold(Told):
    """The version that another one stands on."""

    model: str
    version: int


class Change(Told):
    """A change of stage."""

    stage: Stage
    time: Millis
    by: str
    why: str
    details: dict[str, Any]


class VersionTold(Told):
    """A version of a model."""

    model: str
    version: int
    stage: Stage
    track: str
    artifact: str
    parent: ParentTold | None
    manifest: dict[str, Any]
    metrics: dict[str, float | None]
    history: list[Change]


class MetricTold(Told):
    """A value of a metric at a time; null for one that is no number."""

    name: str
    value: float | None
    time: Millis
    slice: str


class Recorded(Told):
    """How many values were taken."""

    recorded: int


class CausingEvent(Told):
    """An event that met a rule's conditions."""

    offset: int
    key: str
    value: str
    type: str
    create_time: Millis


class CauseTold(BaseModel):
    """Why a run began."""

    rule: str = Field(description="Its name; `manual` for a start by hand.")
    events: list[CausingEvent] = Field(description="Oldest first; none for a rule of the clock.")


class RunTold(Told):
    """An execution of a task."""

    run_id: str
    workflow: str
    task: str
    service: str
    executor: Literal["process", "resident", "stream"]
    command: list[str]
    status: Status
    attempt: int
    cause: CauseTold
    worker: str
    created_at: Millis
    started_at: Millis | None
    ended_at: Millis | None
    result: dict[str, Any]
    error: str


class Token(Told):
    """What the rest of a run is told with."""

    token: str


class Stop(Told):
    """Whether a run should stop."""

    stop: bool


class Applied(Told):
    """An uploaded workflow."""

    workflow: str
    snapshot: int


class Paused(Told):
    """Whether a workflow looks at events."""

    workflow: str
    paused: bool


class WorkflowListed(Told):
    """A workflow."""

    workflow: str
    snapshot: int
    paused: bool
    applied_at: Millis
    rules: int


class WorkflowTold(Told):
    """A workflow with its document."""

    workflow: str
    snapshot: int
    paused: bool
    applied_at: Millis
    document: dict[str, Any]


class RuleTold(BaseModel):
    """A rule as its document has it, and in words."""

    rule: str
    task: str
    action: str
    words: str


class TaskTold(BaseModel):
    """A task as its document has it, with its newest run."""

    task: str
    status: Status
    last_run: RunTold | None


class Firing(Told):
    """A time that a rule fired."""

    time: Millis
    events: list[EventTold]
    effect: str
    run_id: str | None


class SetAside(Told):
    """An event that a rule could not work with."""

    time: Millis
    event: EventTold | None
    error: str


class Why(Told):
    """Why a rule fired, or has not."""

    workflow: str
    rule: str
    task: str
    action: str
    words: str
    paused: bool
    sees_events_after: int
    conditions: dict[str, Any] = Field(default={}, description="With what meets each; of a rule that looks at events.")
    missing: list[str] = Field(description="What has to come yet, in words.")
    events: dict[str, EventTold] = Field(default={}, description="Those that conditions name, by offset.")
    rests_until: Millis | None = None
    next: Millis | None = Field(default=None, description="When a rule of the clock fires.")
    firings: list[Firing]
    set_aside: list[SetAside]


class Effect(Told):
    """What a start or stop by hand did."""

    effect: str
    run_id: str | None


class AuditTold(Told):
    """A call that changed something, or tried to."""

    id: int
    time: Millis
    by: str = Field(description="Name of the key; empty where no keys are configured.")
    address: str
    method: str
    path: str
    body: Any
    status: int | None = Field(description="That it was answered with; null for one that was cut off.")
    ended: Millis | None


def shown(model: Any, status: int = 200, text: str = "Done.") -> dict[int | str, dict[str, Any]]:
    """Responses of a route that answers so."""
    return {status: {"model": model, "description": text}}
