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


def migrate(dsn: str) -> list[str]:
    """Apply what is missing, in order; the names of what was applied.

    Raises:
        psycopg.OperationalError: the database is away.
        psycopg.Error: a migration failed; it left nothing behind.
    """
    with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as guard:
        guard.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        backend = yoyo.get_backend(dsn.replace("postgresql://", "postgresql+psycopg://", 1))
        try:
            missing = backend.to_apply(yoyo.read_migrations(str(FOLDER)))
            backend.apply_migrations(missing)
            return [migration.id for migration in missing]
        finally:
            backend.connection.close()
