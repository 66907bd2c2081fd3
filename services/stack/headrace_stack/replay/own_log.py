"""A person's own log: a row per impression, CSV or Parquet, in the order of time."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from headrace_client import Item, User

from headrace_stack.replay.mapping import Mapping
from headrace_stack.replay.slate import Faults, Shown, Slate
from headrace_stack.replay.table import count_rows, rows_of
from headrace_stack.replay.values import identifier, moment_ms, place, probability, word, yes

#: The gateway ranks no more at once.
_MAX_SLATE: Final = 500
_ENDS_BYTES: Final = 1 << 16
_SOURCE: Final = "log"
_USER_FIELDS: Final = frozenset({"country", "gender", "city"})
_ITEM_FIELDS: Final = {"category": "category", "type": "item_type", "item_type": "item_type", "title": "title"}


@dataclass(slots=True)
class _Open:
    """A slate that may go on in the next row."""

    key: tuple[Any, ...]
    at_ms: int
    user_id: str
    page_id: str
    context: dict[str, str]
    shown: list[Shown] = field(default_factory=list)
    candidates: dict[str, None] = field(default_factory=dict)
    users: list[User] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)


@dataclass
class OwnLog:
    """One file.

    Attributes:
        file: of it.
        mapping: its columns.
        delay: of a click whose time is not told, by source and row.
        page: where no column tells it.
        first_position: how the log counts: from 0 or from 1.
        salt: anything else that makes it another log, e.g. the seed of the delays.
    """

    file: Path
    mapping: Mapping
    delay: Callable[[str, int], float]
    page: str = "replay"
    first_position: int = 0
    salt: str = ""
    faults: Faults = field(default_factory=Faults)

    @property
    def name(self) -> str:
        """Its file's."""
        return self.file.name

    @property
    def rows(self) -> int:
        """As the file tells."""
        return count_rows(self.file)

    @property
    def fingerprint(self) -> str:
        """Of size, both ends, and how it is read."""
        size = self.file.stat().st_size
        how = (size, sorted(self.mapping.plain.items()), sorted(self.mapping.attributes))
        digest = hashlib.sha256(repr((*how, self.page, self.first_position, self.salt)).encode())
        with self.file.open("rb") as source:
            digest.update(source.read(_ENDS_BYTES))
            source.seek(max(0, size - _ENDS_BYTES))
            digest.update(source.read(_ENDS_BYTES))
        return digest.hexdigest()[:16]

    def slates(self) -> Iterator[Slate]:
        """Consecutive rows of one request are a slate; without request ids, those of one user at one time.

        A slate ends also where an item comes a second time, and at 500 rows.
        """
        self.faults = Faults()
        reader = _Reader(self)
        open_: _Open | None = None
        columns = [*self.mapping.plain.values(), *(column for *_, column in self.mapping.attributes)]
        for line, values in rows_of(self.file, columns, self.faults.add):
            try:
                row = reader.read(line, values)
            except (ValueError, TypeError, OverflowError) as error:
                self.faults.add(line, str(error))
                continue
            if open_ is not None and not reader.goes_on(open_, row):
                yield self._closed(open_)
                open_ = None
            open_ = reader.add(open_, row)
        if open_ is not None:
            yield self._closed(open_)

    def _closed(self, slate: _Open) -> Slate:
        return Slate(
            source=_SOURCE,
            at_ms=slate.at_ms,
            user_id=slate.user_id,
            page_id=slate.page_id,
            candidates=list(slate.candidates)[:_MAX_SLATE],
            shown=slate.shown,
            context=slate.context,
            users=slate.users,
            items=slate.items,
            judged="candidates" in self.mapping.plain and "propensity" in self.mapping.plain,
        )


@dataclass(slots=True)
class _Row:
    line: int
    key: tuple[Any, ...]
    at_ms: int
    user_id: str
    page_id: str
    shown: Shown | None
    item_id: str
    position: int | None
    click_after_s: float | None
    propensity: float | None
    candidates: list[str]
    user: dict[str, str]
    item: dict[str, str]
    context: dict[str, str]


class _Reader:
    """Rows into slates; remembers which catalog entries were told."""

    def __init__(self, log: OwnLog) -> None:
        self._log = log
        self._at = {meaning: n for n, meaning in enumerate(log.mapping.plain)}
        after = len(self._at)
        self._attributes = [(family, name, after + n) for n, (family, name, _) in enumerate(log.mapping.attributes)]
        self._users: dict[str, tuple[str, ...]] = {}
        self._items: dict[str, tuple[str, ...]] = {}

    def read(self, line: int, values: tuple[Any, ...]) -> _Row:
        """One row.

        Raises:
            ValueError: a value is wrong; the message names its column.
        """
        told = {meaning: values[n] for meaning, n in self._at.items()}
        user_id = self._as("user_id", identifier, told)
        item_id = self._as("item_id", identifier, told)
        at_ms = self._as("time", moment_ms, told)
        clicked = self._as("click", yes, told)
        position = self._as("position", place, told) if "position" in told else None
        if position is not None:
            position -= self._log.first_position
            if position < 0:
                raise ValueError(
                    f"{self._log.mapping.plain['position']}: positions are to begin at 0: --first-position 0"
                )
        propensity = self._as("propensity", probability, told) if "propensity" in told else None
        request = word(told.get("request_id"))
        maps: dict[str, dict[str, str]] = {"user": {}, "item": {}, "context": {}}
        for family, name, n in self._attributes:
            maps[family][name] = word(values[n])
        return _Row(
            line, ("r", request, user_id) if request else ("t", at_ms, user_id), at_ms, user_id,
            word(told.get("page_id"))[:256] or self._log.page, None, item_id, position,
            self._click_after(line, at_ms, told) if clicked else None, propensity,
            _listed(told.get("candidates")), maps["user"], maps["item"], maps["context"],
        )  # fmt: skip

    def _as(self, meaning: str, read: Callable[[Any], Any], told: dict[str, Any]) -> Any:
        try:
            return read(told[meaning])
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{self._log.mapping.plain[meaning]}: {error}") from None

    def _click_after(self, line: int, at_ms: int, told: dict[str, Any]) -> float:
        if told.get("click_time") in {None, ""}:
            return self._log.delay(_SOURCE, line)
        after_ms: int = self._as("click_time", moment_ms, told) - at_ms
        if after_ms < 0:
            raise ValueError(f"{self._log.mapping.plain['click_time']}: is before the impression")
        return after_ms / 1000

    def goes_on(self, slate: _Open, row: _Row) -> bool:
        """Whether a row is of a slate."""
        return (
            slate.key == row.key
            and len(slate.shown) < _MAX_SLATE
            and all(shown.item_id != row.item_id for shown in slate.shown)
        )

    def add(self, slate: _Open | None, row: _Row) -> _Open:
        """The slate with the row, a new one if there was none."""
        if slate is None:
            slate = _Open(row.key, row.at_ms, row.user_id, row.page_id, row.context)
        position = len(slate.shown) if row.position is None else row.position
        slate.shown.append(Shown(row.line, row.item_id, position, row.click_after_s, row.propensity))
        slate.candidates.update(dict.fromkeys([row.item_id, *row.candidates]))
        if row.user and self._users.get(row.user_id) != (told := tuple(row.user.values())):
            self._users[row.user_id] = told
            slate.users.append(_user(row.user_id, row.user))
        if row.item and self._items.get(row.item_id) != (told := tuple(row.item.values())):
            self._items[row.item_id] = told
            slate.items.append(_item(row.item_id, row.item))
        return slate


def _listed(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    return [identifier(v) for v in (value.split("|") if isinstance(value, str) else value)]


def _user(user_id: str, told: dict[str, str]) -> User:
    own = {name: value[:256] for name, value in told.items() if name in _USER_FIELDS}
    return User(user_id=user_id, **own, attributes={k: v for k, v in told.items() if k not in _USER_FIELDS})


def _item(item_id: str, told: dict[str, str]) -> Item:
    own = {_ITEM_FIELDS[name]: value[:256] for name, value in told.items() if name in _ITEM_FIELDS}
    return Item(
        item_id=item_id,
        item_type=own.get("item_type", ""),
        category=own.get("category", ""),
        title=own.get("title", ""),
        attributes={k: v for k, v in told.items() if k not in _ITEM_FIELDS},
    )
