"""One decision: everything that follows from the events and the time since the one before, in one transaction."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from headrace_core.contracts import Millis
from headrace_core.control.records import Event
from headrace_core.workflow.templates import TemplateError
from prometheus_client import Counter

from headrace_control_plane.rules import rule as rules
from headrace_control_plane.rules.conditions import Happened
from headrace_control_plane.rules.rule import Fired
from headrace_control_plane.scheduler.actions import Actions, Cause, Target
from headrace_control_plane.scheduler.house import Bounds, keep_house
from headrace_control_plane.store import events, workflows
from headrace_control_plane.store.database import Connection, Pool
from headrace_control_plane.store.workflows import Active, Firing

log = logging.getLogger(__name__)

FIRED: Final = Counter("headrace_rule_fired_total", "Firings of rules.", ["workflow", "rule"])
SET_ASIDE: Final = Counter("headrace_control_set_aside_total", "Events that a rule could not work with.", ["workflow"])

#: Events of one decision.
BATCH: Final = 500
#: What evaluating a rule may raise when the fault is the event's or the rule's; anything else ends the leader.
_POISON: Final = (ValueError, ArithmeticError, LookupError, TypeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of it.

    Attributes:
        more: there may be more events to decide on.
        changed: something is to be carried out.
    """

    more: bool
    changed: bool


class Decider:
    """Decides under one epoch."""

    def __init__(self, pool: Pool, epoch: int, bounds: Bounds) -> None:
        """Decide as the leader of this epoch, by these bounds for runs."""
        self._pool, self._epoch, self._bounds = pool, epoch, bounds
        self._documents: dict[tuple[str, int], Mapping[str, Any]] = {}
        self._since: Millis | None = None

    async def decide(self, now: Millis) -> Decision:
        """Commit the next decision.

        Raises:
            FencedError: another scheduler leads; nothing was changed.
        """
        if self._since is None:
            self._since = now
        async with self._pool.acquire() as connection, connection.transaction():
            consumed = await workflows.lock(connection, self._epoch)
            # The events first: a workflow that is active from an offset on is there when the events after it are.
            page = await events.read(connection, consumed, limit=BATCH)
            flows = await workflows.active(connection, self._documents)
            states = await workflows.rule_states(connection)
            actions = await Actions.begin(connection, now)
            before = {run["run_id"]: run["status"] for run in actions.alive}
            decided = _Round(connection, flows, states, actions, {event.offset: event for event in page.items})
            for event in page.items:
                await decided.see(event)
            await decided.tick(now)
            await keep_house(actions, self._bounds, self._since, now)
            if page.next != consumed or decided.changed():
                await workflows.write(
                    connection, page.next, decided.new_states, decided.firings, decided.set_aside, now
                )
            await events.append(connection, actions.told)
        decided.tell()
        after = {run["run_id"]: run["status"] for run in actions.alive}
        return Decision(len(page.items) == BATCH, bool(actions.told) or before != after)


@dataclass(slots=True)
class _Round:
    """The rules in one decision, and what comes together to be written.

    Attributes:
        here: events by offset, those of this decision and what was read besides.
    """

    connection: Connection
    flows: Mapping[str, Active]
    states: Sequence[Mapping[str, Any]]
    actions: Actions
    here: dict[int, Event]
    new_states: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    firings: list[Firing] = field(default_factory=list)
    set_aside: list[tuple[str, str, int, str]] = field(default_factory=list)
    by_key: dict[str, list[Mapping[str, Any]]] = field(init=False)

    def __post_init__(self) -> None:
        """Find the rules that events of a key can matter to, in the order of their workflow."""
        order = {(f.name, r["rule"]): n for f in self.flows.values() for n, r in enumerate(f.document["rules"])}
        self.by_key = defaultdict(list)
        for row in sorted(self.states, key=lambda row: (row["workflow"], order[row["workflow"], row["rule"]])):
            if not self.flows[row["workflow"]].paused:
                for key in rules.keys(row["definition"]):
                    self.by_key[key].append(row)

    async def see(self, event: Event) -> None:
        """Show an event to the rules."""
        happened = Happened(
            event.offset, event.create_time, event.key, event.value, event.type, event.namespace, event.sender
        )
        for row in self.by_key.get(event.key, ()):
            if event.offset <= row["active_after"]:
                continue
            name = (row["workflow"], row["rule"])
            old = self.new_states.get(name, row["state"])
            try:
                state, fired = rules.see(row["definition"], old, happened)
            except _POISON as error:
                self.set_aside.append((*name, event.offset, f"{type(error).__name__}: {error}"))
                continue
            try:
                if fired is not None:
                    await self._fire(row["workflow"], row["definition"], fired)
            except TemplateError as error:  # nothing was done; the rule stays as it was before the event
                self.set_aside.append((*name, event.offset, str(error)))
                continue
            if state != old:
                self.new_states[name] = state

    async def tick(self, now: Millis) -> None:
        """Show the time to the rules that go by the clock."""
        for row in self.states:
            flow, rule = self.flows[row["workflow"]], row["definition"]
            if "when" in rule or flow.paused or row["state"]["next"] > now:
                continue
            policy = flow.document["tasks"][rule["task"]].get("catch_up", "latest")
            state, due = rules.tick(rule, row["state"], now, policy)
            self.new_states[row["workflow"], row["rule"]] = state
            for fired in due:
                await self._fire(row["workflow"], rule, fired)

    async def _fire(self, workflow: str, rule: Mapping[str, Any], fired: Fired) -> None:
        offsets = [ref.offset for ref in fired.events]
        if unread := [offset for offset in offsets if offset not in self.here]:
            self.here |= await events.by_offset(self.connection, unread)
        flow = self.flows[workflow]
        effect, run_id = await self.actions.take(
            Target(workflow, flow.snapshot, rule["task"], flow.document["tasks"][rule["task"]]),
            rule["action"],
            Cause(rule["rule"], [self.here[offset] for offset in offsets]),
        )
        self.firings.append(Firing(workflow, rule["rule"], fired.time, offsets, effect, run_id))

    def changed(self) -> bool:
        """Whether there is something to write."""
        return bool(self.new_states or self.firings or self.set_aside)

    def tell(self) -> None:
        """Count and log what was committed."""
        for firing in self.firings:
            FIRED.labels(firing.workflow, firing.rule).inc()
            told = {"workflow": firing.workflow, "rule": firing.rule, "effect": firing.effect, "events": firing.events}
            log.info("a rule fired", extra={"fields": told})
        for workflow, rule, offset, error in self.set_aside:
            SET_ASIDE.labels(workflow).inc()
            log.warning(
                "an event was set aside",
                extra={"fields": {"workflow": workflow, "rule": rule, "event": offset, "error": error}},
            )
