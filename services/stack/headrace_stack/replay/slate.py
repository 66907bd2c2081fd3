"""What a log holds, in the words of a replay."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from headrace_client import Item, User

_SHOWN_FAULTS: Final = 20


@dataclass(frozen=True, slots=True)
class Shown:
    """An impression.

    Attributes:
        row: its line in the log; with the log's name it makes the event's id.
        item_id: what was shown.
        position: where, from 0.
        click_after_s: how long until the click, in the log's time; None without one.
        propensity: probability with which the log's policy showed it there; None where the log does not tell.
    """

    row: int
    item_id: str
    position: int
    click_after_s: float | None = None
    propensity: float | None = None


@dataclass(frozen=True, slots=True)
class Slate:
    """Impressions of one request.

    Attributes:
        source: part of the log, e.g. its file.
        at_ms: when, in the log's time, ms since the epoch.
        user_id, page_id, context: of the request.
        candidates: what is ranked.
        shown: what the log says was shown.
        users, items: catalog entries that are new or changed as of now.
        judged: whether an estimate may be made of it: candidates are complete and propensities are there.
    """

    source: str
    at_ms: int
    user_id: str
    page_id: str
    candidates: Sequence[str]
    shown: Sequence[Shown]
    context: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    users: Sequence[User] = ()
    items: Sequence[Item] = ()
    judged: bool = False


@dataclass(slots=True)
class Faults:
    """Rows that can't be used.

    Attributes:
        count: how many.
        first: the first of them, with their line and what is wrong.
    """

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, line: int, what: str, source: str = "") -> None:
        """Note one."""
        self.count += 1
        if len(self.first) < _SHOWN_FAULTS:
            self.first.append(f"{source}{' ' if source else ''}line {line}: {what}")


class Log(Protocol):
    """A log that can be replayed, read anew at each call and always in the same order."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def fingerprint(self) -> str:
        """Differs when its content or its mapping differs."""

    @property
    def rows(self) -> int:
        """About how many rows it has."""

    @property
    def faults(self) -> Faults:
        """Rows that could not be used, as far as it was read."""

    def slates(self) -> Iterator[Slate]:
        """All of it, in the order of time."""
