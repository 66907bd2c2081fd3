"""Applies the SQL migrations, forward only."""

import logging
from pathlib import Path
from typing import Final

import psycopg
import yoyo

log = logging.getLogger(__name__)

FOLDER: Final = Path(__file__).resolve().parents[1] / "migrations"
#: Held while migrating, so that two init jobs at once apply each migration once.
_LOCK: Final = 0x6865616472616365 >> 1


class EncodingError(Exception):
    """The database can't hold all texts; the message says what to do."""


def migrate(dsn: str) -> list[str]:
    """Apply what is missing, in order; the names of what was applied.

    Raises:
        EncodingError: the database is not in UTF8; nothing was applied.
        psycopg.OperationalError: the database is away.
        psycopg.Error: a migration failed; it left nothing behind.
    """
    # The client's encoding is told, since texts of a database in SQL_ASCII are bytes otherwise.
    with psycopg.connect(dsn, autocommit=True, connect_timeout=10, client_encoding="UTF8") as guard:
        _check_encoding(guard)
        guard.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        backend = yoyo.get_backend(dsn.replace("postgresql://", "postgresql+psycopg://", 1))
        try:
            missing = backend.to_apply(yoyo.read_migrations(str(FOLDER)))
            backend.apply_migrations(missing)
            return [migration.id for migration in missing]
        finally:
            backend.connection.close()


def _check_encoding(connection: "psycopg.Connection[tuple[str, ...]]") -> None:
    row = connection.execute("SHOW server_encoding").fetchone()
    assert row is not None  # noqa: S101  # a setting that there always is
    if row[0] != "UTF8":
        name = connection.info.dbname
        raise EncodingError(
            f"the database {name} has the encoding {row[0]}, not UTF8: create it anew by "
            f"CREATE DATABASE \"{name}\" ENCODING 'UTF8' TEMPLATE template0"
        )
