"""Joins impressions, actions and feature logs by request id, in any order of arrival.

The history of a label is a function of the order of behaviour events alone: their time moves record by record, and the
windows that end then end before the record that moved it. The feature log only gates publication. State is let go of by
the watermark of both inputs, so that a log is never late only because its topic is read more slowly.
"""

import heapq
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import xxhash
from google.protobuf.message import DecodeError
from headrace_core.contracts import LABEL_OF_ACTION, Action, BehaviorEvent, FeatureLog, Millis
from headrace_core.runtime.dedupe import Dedupe
from headrace_core.runtime.operator import Batch, Output, Record

from headrace_sample_joiner.joiner.effects import Correction, Counts, Evidence, Forget, Revived, Version
from headrace_sample_joiner.joiner.state import Early, Log, Request, Shown, request_time

BEHAVIOR: Final = "behavior-events.v1"
LOGS: Final = "feature-logs.v1"

_IMPRESSION: Final = int(Action.ACTION_IMPRESSION)
_BITS: Final = {action: int(label) for action, label in LABEL_OF_ACTION.items()}
_FORGET_EVERY_MS: Final = 60_000


class _Delta(msgspec.Struct, array_like=True):
    """Part of the state: all of it in a snapshot, what changed otherwise; None stands for gone."""

    high: int
    watermark: int
    settled: int
    forgotten: int
    requests: dict[str, Request | None]
    logs: dict[str, Log | None]
    used: list[str]
    dedupe: bytes | None
    whole: bool


_decode_features = msgspec.json.Decoder(dict[str, Any]).decode
_decode_delta = msgspec.msgpack.Decoder(_Delta).decode


class JoinOperator:
    """One partition of the sample joiner."""

    def __init__(
        self, *, window_ms: int, lateness_ms: int, horizon_ms: int, dedupe_window_ms: int, actions: frozenset[int]
    ) -> None:
        """Make an operator without state.

        Args:
            window_ms: attribution window.
            lateness_ms: how much later than the newest an event may come.
            horizon_ms: how long after the impression an action still corrects.
            dedupe_window_ms: how long an event_id is remembered.
            actions: numbers of the actions that label.
        """
        self._window, self._lateness, self._horizon = window_ms, lateness_ms, horizon_ms
        self._bits = {a: b for a, b in _BITS.items() if a in actions}
        self._dedupe = Dedupe(dedupe_window_ms)
        self._requests: dict[str, Request] = {}
        self._logs: dict[str, Log] = {}
        self._used: set[str] = set()  # ids of the logs that an impression came for
        self._ends: list[tuple[int, str, str]] = []  # of windows: (time, request_id, item_id)
        self._leaving: list[tuple[int, str]] = []  # requests and logs to let go of: (time, request_id)
        self._high = 0  # newest behaviour event
        self._watermark = 0  # of behaviour events: windows up to here are over
        self._settled = 0  # of both inputs: what nobody waits for any more up to here is gone from the state
        self._forgotten = 0
        self._dirty: set[str] = set()
        self._dirty_logs: set[str] = set()
        self._dirty_used: set[str] = set()
        self._counts = Counts()
        self._event = BehaviorEvent()

    # -- the operator's protocol

    def process(self, batch: Batch, out: Output) -> None:
        """Take the next records of one input."""
        take = self._behavior if batch.topic == BEHAVIOR else self._log
        for record in batch.records:
            fault = take(record, out)
            if fault is not None:
                out.reject(batch.topic, record, fault)
        if batch.topic == BEHAVIOR:
            out.observe(self._high)

    def advance(self, watermark: Millis, out: Output) -> None:
        """Neither input expects anything earlier: end windows if it is quiet, and let go of what is settled."""
        if watermark <= self._settled:
            return
        if watermark > self._watermark:
            self._move(watermark, out)
        self._settled = watermark
        leaving = self._leaving
        while leaving and leaving[0][0] <= watermark:
            at, request_id = heapq.heappop(leaving)
            self._retire(request_id, at, out)
        if watermark - self._forgotten >= _FORGET_EVERY_MS:
            self._forgotten = watermark
            out.emit(Forget(watermark - self._horizon))

    def flush(self, out: Output) -> None:
        """Tell the changes of the accounting."""
        if self._counts != Counts():
            out.emit(self._counts)
            self._counts = Counts()

    def changes(self) -> bytes | None:
        """Requests and logs that changed, new event ids, time."""
        delta = _Delta(
            self._high, self._watermark, self._settled, self._forgotten,
            {k: self._requests.get(k) for k in self._dirty}, {k: self._logs.get(k) for k in self._dirty_logs},
            list(self._dirty_used), self._dedupe.changes(), False,
        )  # fmt: skip
        self._saved()
        return msgspec.msgpack.encode(delta)

    def snapshot(self) -> bytes:
        """Everything."""
        self._saved()
        return msgspec.msgpack.encode(
            _Delta(self._high, self._watermark, self._settled, self._forgotten, dict(self._requests), dict(self._logs),
                   list(self._used), self._dedupe.snapshot(), True)
        )  # fmt: skip

    def restore(self, snapshot: bytes | None, changes: Sequence[bytes]) -> None:
        """Take over a snapshot and the changes after it."""
        parts = [_decode_delta(data) for data in ([snapshot] if snapshot else []) + list(changes)]
        for part in parts:
            self._high, self._watermark = part.high, part.watermark
            self._settled, self._forgotten = part.settled, part.forgotten
            _merge(self._requests, part.requests)
            _merge(self._logs, part.logs)
            self._used = (self._used | set(part.used)) & self._logs.keys()
        ids = [p.dedupe for p in parts if p.dedupe is not None]
        whole = ids.pop(0) if parts and parts[0].whole else None
        self._dedupe.restore(whole, ids)
        for request_id, request in self._requests.items():
            self._ends += [
                (s.deadline, request_id, item) for item, s in request.shown.items() if s.deadline > self._watermark
            ]
            self._leaving.append((request.retire_at, request_id))
        self._leaving += [(log.expires_at, request_id) for request_id, log in self._logs.items()]
        heapq.heapify(self._ends)
        heapq.heapify(self._leaving)

    def _saved(self) -> None:
        self._dirty.clear()
        self._dirty_logs.clear()
        self._dirty_used.clear()

    # -- behaviour events

    def _behavior(self, record: Record, out: Output) -> str | None:
        """Process one behaviour event; why it can't be used, if so."""
        event = self._event
        try:
            event.ParseFromString(record.value or b"")
        except DecodeError as error:
            return f"not a BehaviorEvent: {error}"
        if not event.event_id or not event.user_id or not event.action or event.event_time <= 0:
            return "incomplete: event_id, user_id, event_time and action are required"
        self._observe(event, out)
        bit = self._bits.get(event.action)
        if event.action != _IMPRESSION and bit is None:
            return None
        item_id = event.item_id
        if not item_id or "\0" in item_id or "\0" in event.user_id or "\0" in event.page_id:
            return "incomplete: item_id is required, and no text may hold a NUL"
        repeated = self._dedupe.seen(event.event_id, self._high)
        if bit is not None:
            if not repeated:
                self._action(event, item_id, bit, out)
            return None
        self._counts.impressions += 1
        if repeated:
            self._counts.duplicate += 1
        else:
            self._impression(event, item_id, record.offset)
            self._publish_early(event.request_id, item_id, out)
        return None

    def _observe(self, event: BehaviorEvent, out: Output) -> None:
        """Let the event move time; one client with a wrong clock must not close windows."""
        time, ingested = event.event_time, event.ingest_time
        if ingested and ingested < time:
            time = ingested
        if time > self._high:
            self._high = time
            if time - self._lateness > self._watermark:
                self._move(time - self._lateness, out)

    def _impression(self, event: BehaviorEvent, item_id: str, offset: int) -> None:
        request_id = event.request_id
        request = self._requests.get(request_id)
        if request is None:
            made_at = self._attributable(event)
            if made_at is None:
                self._counts.orphaned += 1
                return
            request = self._open(request_id, event, made_at)
        if item_id in request.shown:
            self._counts.duplicate += 1
            return
        if not request.shown:  # an action that came first may be of another page
            request.user_id, request.page_id = event.user_id, event.page_id
        self._counts.pending += 1
        deadline = max(event.event_time + self._window, self._watermark + self._lateness)
        shown = Shown(event.event_time, deadline, event.position, offset)
        request.shown[item_id] = shown
        heapq.heappush(self._ends, (deadline, request_id, item_id))
        if deadline > request.retire_at:
            self._keep(request_id, request, deadline)
        if request_id in self._logs:
            self._use_log(request_id)
        for early in request.early.pop(item_id, ()):
            shown.apply(early.bit, early.event, cancel=early.cancel)
        self._dirty.add(request_id)

    def _publish_early(self, request_id: str, item_id: str, out: Output) -> None:
        """An impression whose action came first is positive at once."""
        request = self._requests.get(request_id)
        if request is not None and (shown := request.shown.get(item_id)) is not None and shown.history:
            self._publish(request_id, request, item_id, shown, out)

    def _action(self, event: BehaviorEvent, item_id: str, bit: int, out: Output) -> None:
        request_id = event.request_id
        if not request_id:
            self._counts.organic += 1
            return
        digest = xxhash.xxh3_64_intdigest((event.corrects or event.event_id).encode())
        digest -= (digest >> 63) << 64  # as Postgres' bigint
        cancel = bool(event.corrects)
        request = self._requests.get(request_id)
        if request is None:
            made_at = self._attributable(event)
            if made_at is None:
                self._counts.unattributed += not cancel
                return
            if self._retire_at(made_at) <= self._settled:  # it may have left the state: the store knows
                evidence = Evidence(request_id, item_id, bit, digest, cancel)
                out.emit(Correction(evidence, event.event_time))
                return
            request = self._open(request_id, event, made_at)
        self._dirty.add(request_id)
        shown = request.shown.get(item_id)
        if shown is None:
            request.early.setdefault(item_id, []).append(Early(bit, digest, cancel, event.event_time))
            return
        if not request.fresh and (shown.published or shown.orphaned):  # the store owns the label
            out.emit(Correction(Evidence(request_id, item_id, bit, digest, cancel), event.event_time))
            return
        shown.apply(bit, digest, cancel=cancel)
        self._publish(request_id, request, item_id, shown, out)

    def _attributable(self, event: BehaviorEvent) -> Millis | None:
        """Time of the event's request, None if no request of ours can be meant."""
        made_at = request_time(event.request_id)
        if made_at is None or not -self._horizon <= event.event_time - made_at <= self._horizon:
            return None
        return made_at

    def _retire_at(self, made_at: Millis) -> Millis:
        return made_at + self._window + 2 * self._lateness

    def _open(self, request_id: str, event: BehaviorEvent, made_at: Millis) -> Request:
        retire_at = self._retire_at(made_at)
        fresh = retire_at > self._settled
        if not fresh:
            retire_at = self._watermark + self._lateness
        request = Request(event.user_id, event.page_id, made_at, retire_at, fresh, {}, {})
        self._requests[request_id] = request
        heapq.heappush(self._leaving, (retire_at, request_id))
        return request

    def _keep(self, request_id: str, request: Request, retire_at: Millis) -> None:
        request.retire_at = retire_at
        heapq.heappush(self._leaving, (retire_at, request_id))
        self._dirty.add(request_id)

    # -- feature logs

    def _log(self, record: Record, out: Output) -> str | None:
        value = record.value or b""
        try:
            log = FeatureLog.FromString(value)
        except DecodeError as error:
            return f"not a FeatureLog: {error}"
        request_id = log.request_id
        made_at = request_time(request_id)
        if made_at is None:
            return "incomplete: request_id must be a UUIDv7"
        out.observe(made_at)
        if request_id in self._logs:
            return None  # sent twice
        fault = _json_fault(log)
        if fault is not None:
            return fault
        request = self._requests.get(request_id)
        waits = max(self._retire_at(made_at), self._watermark + self._lateness)
        self._logs[request_id] = Log(value, record.offset, waits)
        self._dirty_logs.add(request_id)
        heapq.heappush(self._leaving, (waits, request_id))
        if request is not None and request.shown:
            self._use_log(request_id)
            if any(s.orphaned and not s.published for s in request.shown.values()):  # it waited for nothing else
                self._keep(request_id, request, max(waits, *(s.deadline for s in request.shown.values())))
            for item_id, shown in request.shown.items():
                if shown.history:
                    self._publish(request_id, request, item_id, shown, out)
        return None

    def _use_log(self, request_id: str) -> None:
        if request_id not in self._used:
            self._used.add(request_id)
            self._dirty_used.add(request_id)

    # -- time

    def _move(self, watermark: Millis, out: Output) -> None:
        """Move the watermark of behaviour events and end the windows that are over, oldest first."""
        self._watermark = watermark
        ends = self._ends
        while ends and ends[0][0] <= watermark:
            _, request_id, item_id = heapq.heappop(ends)
            self._expire(request_id, item_id, out)

    def _expire(self, request_id: str, item_id: str, out: Output) -> None:
        """The window of an impression is over: negative unless decided, orphan unless its log is there."""
        request = self._requests[request_id]
        shown = request.shown[item_id]
        self._dirty.add(request_id)
        if not shown.history:
            shown.history = (0,)
        if request.fresh and request_id not in self._logs:
            shown.orphaned = True
            self._counts.pending -= 1
            self._counts.orphaned += 1
        elif request.fresh:
            self._publish(request_id, request, item_id, shown, out)
        else:
            self._revive(request_id, request, item_id, shown, out)

    def _publish(self, request_id: str, request: Request, item_id: str, shown: Shown, out: Output) -> None:
        """Tell the store the versions that it does not know, if the log is there."""
        log = self._logs.get(request_id)
        if log is None:
            return
        if not request.fresh:
            if shown.orphaned and not shown.published:
                self._revive(request_id, request, item_id, shown, out)
            return
        while shown.published < len(shown.history):
            shown.published += 1
            version = self._version(request_id, request, item_id, shown, shown.published, log)
            request.published = True
            if version.version == 1:
                if shown.orphaned:
                    self._counts.orphaned -= 1
                else:
                    self._counts.pending -= 1
            self._counts.published(version.label, version.previous, version.version)
            out.emit(version)
            self._dirty.add(request_id)

    def _revive(self, request_id: str, request: Request, item_id: str, shown: Shown, out: Output) -> None:
        """Let the store decide on an impression that came after its request had left the state.

        Only the store knows whether the row, or the item in it, is there. It owns the label from now on, so what backs
        it is told as corrections. Without its log it may be an orphan, and is told again when the log comes.
        """
        log = self._logs.get(request_id)
        version = self._version(request_id, request, item_id, shown, 1, log)
        if shown.orphaned:
            out.emit(Revived(version, repairs=True))
        else:
            self._counts.pending -= 1
            out.emit(Revived(version, repairs=False))
            for evidence in _backing(request_id, item_id, shown):
                out.emit(Correction(evidence, shown.event_time))
        shown.orphaned = log is None
        shown.published = int(log is not None)
        self._dirty.add(request_id)

    @staticmethod
    def _version(  # noqa: PLR0913, PLR0917  # the place of one sample, told by its parts
        request_id: str, request: Request, item_id: str, shown: Shown, number: int, log: Log | None
    ) -> Version:
        return Version(
            request_id, item_id, request.user_id, request.page_id, shown.event_time, shown.position, shown.offset,
            shown.history[number - 1] if request.fresh else shown.history[-1],
            shown.history[number - 2] if number > 1 else 0, number,
            log.value if log else b"", log.offset if log else -1, request.fresh and not request.published,
        )  # fmt: skip

    def _retire(self, request_id: str, at: Millis, out: Output) -> None:
        """Let go of a request that is settled, and of a log that nobody waits for."""
        request, log = self._requests.get(request_id), self._logs.get(request_id)
        if request is not None:
            if request.retire_at > at:
                return
            horizon = request.made_at + self._horizon
            if horizon > at and any(s.orphaned and not s.published for s in request.shown.values()):
                self._keep(request_id, request, horizon)
                return
            self._settle(request_id, request, out)
            del self._requests[request_id]
            self._dirty.add(request_id)
        if log is not None and log.expires_at <= at:
            self._counts.expired_logs += request_id not in self._used
            self._used.discard(request_id)
            self._dirty_used.discard(request_id)
            del self._logs[request_id]
            self._dirty_logs.add(request_id)

    def _settle(self, request_id: str, request: Request, out: Output) -> None:
        """Hand what backs the labels to the store: it corrects them from now on."""
        for item_id, shown in request.shown.items():
            if shown.published and request.fresh:
                for evidence in _backing(request_id, item_id, shown):
                    out.emit(evidence)
        for item_id, waiting in request.early.items():
            for early in waiting:
                evidence = Evidence(request_id, item_id, early.bit, early.event, early.cancel)
                out.emit(Correction(evidence, early.event_time))


def _json_fault(log: FeatureLog) -> str | None:
    """Why the features of a log could not be read back as jsonb, if so."""
    for text in (log.user_features, log.context_features, *(item.features for item in log.items)):
        if not text:
            continue
        try:
            _decode_features(text)
        except ValueError as error:  # JSON or its UTF-8
            return f"not JSON: {error} in {text[:200]!r}"
        if b"\\u0000" in text:
            return f"not JSON: jsonb holds no NUL, as in {text[:200]!r}"
    return None


def _backing(request_id: str, item_id: str, shown: Shown) -> Iterator[Evidence]:
    for bit, event in shown.actions:
        yield Evidence(request_id, item_id, bit, event, cancelled=False)
    for bit, event in shown.cancelled:
        yield Evidence(request_id, item_id, bit, event, cancelled=True)


def _merge(state: dict[str, Any], changed: dict[str, Any]) -> None:
    for key, value in changed.items():
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value
