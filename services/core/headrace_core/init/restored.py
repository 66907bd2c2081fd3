"""After a restore of PostgreSQL from a backup: what the lost time told the world is made void.

Kafka and Redis were not set back with the database. samples.v1 holds messages with seqs that will be given out again, and
values in Redis and feature-partials.v1 carry versions from claims that the database no longer knows. So both numbers are
raised above whatever the lost time can have used. They are taken from the clock, since the database can't know them:
the same backup may be restored twice.
"""

import logging
import time
from dataclasses import dataclass
from typing import Final

import psycopg

log = logging.getLogger(__name__)

#: Epochs have 23 bits in a packed version: in steps of 128 s since 2026 they last until 2060, above all that are counted.
_EPOCHS_SINCE: Final = 1_767_225_600
_EPOCH_SECONDS: Final = 128

_ALIVE: Final = """
SELECT DISTINCT a.application_name FROM pg_stat_activity a JOIN runtime.partitions p
    ON a.application_name = p.owner OR right(a.application_name, length(p.job) + 1) = ':' || p.job
WHERE a.datname = current_database() ORDER BY 1
"""


class AliveError(Exception):
    """Workers are at work on the restored database; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Raised:
    """What a restore raised.

    Attributes:
        incarnation: of samples.v1 and other sequenced topics, from now on.
        epoch: every later claim is above it.
        partitions: how many, over all jobs.
        anew: whether this call did it; an earlier one of the same name had otherwise.
    """

    incarnation: int
    epoch: int
    partitions: int
    anew: bool


def raise_after_restore(dsn: str, name: str) -> Raised:
    """Raise incarnation and epochs, once per name, in one transaction.

    Args:
        dsn: of the restored database, migrated.
        name: of the restore, any text that no restore had before.

    Raises:
        AliveError: workers are connected; what they send may be void already.
        psycopg.Error: the database is away or refused.
    """
    with psycopg.connect(dsn, connect_timeout=10) as connection:
        connection.execute("LOCK TABLE runtime.restores")
        count = _one(connection, "SELECT count(*) FROM runtime.partitions")
        known = connection.execute(
            "SELECT incarnation, epoch FROM runtime.restores WHERE name = %s", (name,)
        ).fetchone()
        if known is not None:
            return Raised(known[0], known[1], count, anew=False)
        alive = [row[0] for row in connection.execute(_ALIVE)]
        if alive:
            raise AliveError(
                f"the restore {name} can't be declared while workers are at work: stop {', '.join(alive)}, "
                "see docs/operations/backup-and-restore.md"
            )
        now = int(time.time())
        incarnation = max(now, 1 + _one(connection, "SELECT incarnation FROM runtime.incarnation"))
        epoch = max(
            (now - _EPOCHS_SINCE) // _EPOCH_SECONDS,
            1 + _one(connection, "SELECT coalesce(max(epoch), 0) FROM runtime.partitions"),
        )
        connection.execute("UPDATE runtime.incarnation SET incarnation = %s, raised_at = now()", (incarnation,))
        connection.execute(
            "INSERT INTO runtime.rewinds SELECT job, partition, %s, next_seq FROM runtime.partitions", (incarnation,)
        )
        connection.execute("UPDATE runtime.partitions SET epoch = %s, number = 0", (epoch,))
        connection.execute("INSERT INTO runtime.restores VALUES (%s, %s, %s)", (name, incarnation, epoch))
    return Raised(incarnation, epoch, count, anew=True)


def _one(connection: "psycopg.Connection[tuple[int, ...]]", query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None  # noqa: S101  # an aggregate, or the one row
    return row[0]
