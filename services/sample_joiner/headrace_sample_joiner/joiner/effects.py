"""What the joiner asks the sample store to do, in order."""

from dataclasses import dataclass

import msgspec
from headrace_core.contracts import Millis


class Version(msgspec.Struct, array_like=True, gc=False):
    """One step in the history of a sample whose request is still in the joiner's state.

    Attributes:
        request_id, item_id: the sample.
        user_id, page_id: of the request.
        event_time: of the impression, ms since the epoch.
        position: in the list, as the impression told it.
        offset: of the impression in behavior-events.v1.
        label: after the step.
        previous: before the step.
        version: 1 for the first publication.
        log: raw FeatureLog.
        log_offset: its offset in feature-logs.v1.
        opens: whether it is the first of its request, so that the store has no row yet.
    """

    request_id: str
    item_id: str
    user_id: str
    page_id: str
    event_time: int
    position: int
    offset: int
    label: int
    previous: int
    version: int
    log: bytes
    log_offset: int
    opens: bool


@dataclass(frozen=True, slots=True)
class Revived:
    """An impression that came after its request had left the state; the store knows whether the row is there.

    Attributes:
        version: its first version; `log` is empty unless a log waited for it.
        repairs: whether it was told before, without its log: it is new only if it was an orphan.
    """

    version: Version
    repairs: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """An action on a sample, by which its label bit stands or falls once the request has left the state.

    Attributes:
        request_id, item_id: the sample.
        bit: of the label mask.
        event: hash of the action's event_id.
        cancelled: whether the action was taken back; a cancelled one never counts, in whichever order it came.
    """

    request_id: str
    item_id: str
    bit: int
    event: int
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Correction:
    """An action or a cancellation that came after its request had left the state.

    Attributes:
        evidence: what came.
        event_time: when the user did it, ms since the epoch.
    """

    evidence: Evidence
    event_time: Millis


@dataclass(frozen=True, slots=True)
class Forget:
    """Actions that wait for an impression since before this time are given up as unattributed.

    Attributes:
        before: ms since the epoch.
    """

    before: Millis


@dataclass(slots=True)
class Counts:
    """Changes of the accounting since the last checkpoint; the names are the columns of samples.accounting."""

    impressions: int = 0
    joined: int = 0
    positive: int = 0
    negative: int = 0
    orphaned: int = 0
    duplicate: int = 0
    pending: int = 0
    corrected: int = 0
    unattributed: int = 0
    organic: int = 0
    expired_logs: int = 0

    def published(self, label: int, previous: int, version: int) -> None:
        """A version was published: a first one joins, a later one corrects."""
        if version == 1:
            self.joined += 1
            if label:
                self.positive += 1
            else:
                self.negative += 1
            return
        self.corrected += 1
        if bool(label) != bool(previous):
            self.positive += 1 if label else -1
            self.negative += -1 if label else 1
