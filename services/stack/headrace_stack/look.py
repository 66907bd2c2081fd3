"""Looks into a running stack's PostgreSQL; nothing is changed by it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

Row = dict[str, Any]

#: What samples.accounting counts.
ACCOUNTS: Final = (
    "impressions", "joined", "positive", "negative", "orphaned", "duplicate", "pending", "corrected", "unattributed"
)  # fmt: skip

#: An export's page: what the client holds at once.
_PAGE: Final = 2_000
_COLUMNS: Final = """
    request_id::text, item_id, user_id, event_time, label, version, (extract(epoch FROM joined_at) * 1000)::bigint AS joined_at,
    model, model_version, feature_set_version, page_id, position, score, propensity, source_partition
"""
#: Request ids are in the order of time, and so is the index: the newest are found without a look at the others.
_NEWEST: Final = """
    SELECT {columns} FROM samples.current WHERE request_id IN (
        SELECT request_id FROM samples.requests WHERE {where} ORDER BY day DESC, request_id DESC LIMIT %(limit)s
    ) ORDER BY request_id DESC, position LIMIT %(limit)s
"""
_ACCOUNTED: Final = """
    SELECT a.*, coalesce(r.rows, 0)::bigint AS rows, coalesce(r.positive_rows, 0)::bigint AS positive_rows
    FROM samples.accounting a LEFT JOIN (
        SELECT source_partition, count(*) AS rows, count(*) FILTER (WHERE label <> 0) AS positive_rows
        FROM samples.current GROUP BY source_partition
    ) r USING (source_partition) ORDER BY source_partition
"""


@contextmanager
def _reading(dsn: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection that may only read, in one snapshot."""
    with psycopg.connect(dsn, options="-c default_transaction_read_only=on", connect_timeout=10) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        yield connection


def query(dsn: str, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Columns and rows of a question.

    Raises:
        psycopg.Error: PostgreSQL refused it.
    """
    with _reading(dsn) as connection:
        cursor = connection.execute(sql.encode())
        return [column.name for column in cursor.description or ()], cursor.fetchall() if cursor.description else []


def newest_samples(dsn: str, limit: int, wanted: dict[str, str | None], *, features: bool) -> list[Row]:
    """The newest samples, newest request first.

    Args:
        dsn: of the database.
        limit: at most so many.
        wanted: user_id, item_id and request_id, where told.
        features: whether the features that served are told as well.
    """
    clauses = {
        "user_id": "user_id = %(user_id)s",
        "item_id": "%(item_id)s = ANY(items)",
        "request_id": "request_id = %(request_id)s::uuid",
    }
    where = " AND ".join([clause for name, clause in clauses.items() if wanted.get(name)]) or "true"
    text = _NEWEST.format(columns=_COLUMNS + (", features" if features else ""), where=where)
    with _reading(dsn) as connection:
        found = connection.cursor(row_factory=dict_row).execute(text.encode(), {**wanted, "limit": limit}).fetchall()
    item = wanted.get("item_id")
    return [row for row in found if item is None or row["item_id"] == item]


def exported_samples(dsn: str, since: int | None, until: int | None) -> Iterator[list[Row]]:
    """Every sample of impressions in [since, until), a page at a time, of one snapshot; features as JSON text."""
    clauses = [
        c for bound, c in ((since, "event_time >= %(since)s"), (until, "event_time < %(until)s")) if bound is not None
    ]
    text = f"SELECT {_COLUMNS}, features::text AS features FROM samples.current WHERE {' AND '.join(clauses) or 'true'}"  # noqa: S608  # constants
    with _reading(dsn) as connection, connection.cursor("export", row_factory=dict_row) as cursor:
        cursor.execute(text.encode(), {"since": since, "until": until})
        while page := cursor.fetchmany(_PAGE):
            yield page


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the impressions of a source partition.

    Attributes:
        counts: columns of samples.accounting, and `rows` and `positive_rows` as the table has them.
        faults: which sums do not hold, in words.
    """

    counts: Row
    faults: Sequence[str]


def audited(counts: Row) -> Account:
    """Whether the sums of a source partition hold. Rows may be fewer than were joined: old days are dropped, users erased."""
    told = counts["joined"] + counts["orphaned"] + counts["duplicate"] + counts["pending"]
    labelled = counts["positive"] + counts["negative"]
    faults = []
    if counts["impressions"] != told:
        faults.append(f"{counts['impressions']} impressions, but {told} joined, orphaned, duplicate and pending")
    if counts["joined"] != labelled:
        faults.append(f"{counts['joined']} joined, but {labelled} positive and negative")
    if counts["rows"] > counts["joined"]:
        faults.append(f"{counts['rows']} rows, but {counts['joined']} joined")
    if counts["rows"] == counts["joined"] and counts["positive_rows"] != counts["positive"]:
        faults.append(f"{counts['positive_rows']} positive rows, but {counts['positive']} positive")
    return Account(counts, faults)


def accounts(dsn: str) -> list[Account]:
    """Every source partition, with the rows counted in the same snapshot."""
    with _reading(dsn) as connection:
        found = connection.cursor(row_factory=dict_row).execute(_ACCOUNTED.encode()).fetchall()
    return [audited(row) for row in found]


def accounting(dsn: str) -> Row:
    """Each count of samples.accounting, summed over source partitions; no row is counted, so it may be asked often."""
    with _reading(dsn) as connection:
        found = connection.cursor(row_factory=dict_row).execute("SELECT * FROM samples.accounting").fetchall()
    return {name: sum(int(row[name]) for row in found) for name in ACCOUNTS}


def features_of(row: Row) -> Row:
    """A row of an export with its features read."""
    return row | {"features": json.loads(row["features"])}
