"""`headrace-init`: applies migrations and topics, declares restores; may run any number of times and beside itself."""

import asyncio
import logging
import sys
import time
from typing import Final

import psycopg
from aiokafka.errors import KafkaConnectionError, KafkaError

from headrace_core.definitions.topics import Topic, TopicError, load_topics
from headrace_core.init.migrations import EncodingError, migrate
from headrace_core.init.restored import AliveError, raise_after_restore
from headrace_core.init.settings import InitSettings
from headrace_core.init.topics import apply_topics
from headrace_core.telemetry import configure_logging

log = logging.getLogger("headrace_core.init")

EXIT_FAILED, EXIT_AWAY = 1, 3
_POLL_SECONDS: Final = 0.1


def main() -> None:
    """Entry point: exit code 0, 1 (a definition, the database or a migration is wrong) or 3 (a dependency is away)."""
    settings = InitSettings()
    configure_logging(settings)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its failures are told by the last line here
    deadline = time.monotonic() + settings.init_wait_ms / 1000
    try:
        topics = load_topics(settings.definitions / "topics", settings.partitions)
        applied = _migrate_when_there(settings, deadline)
        _declare_restored(settings)
        created = asyncio.run(_apply_when_there(settings, topics, deadline))
    except (TopicError, EncodingError, AliveError) as error:
        log.critical("%s", error)
        sys.exit(EXIT_FAILED)
    except (OSError, psycopg.OperationalError) as error:
        log.critical("a dependency is away: %s", str(error).strip().splitlines()[0])
        sys.exit(EXIT_AWAY)
    except KafkaError as error:
        log.critical("Kafka: %s", error)
        sys.exit(EXIT_AWAY)
    except psycopg.Error as error:
        log.critical("a migration or a restore's declaration failed: %s", error)
        sys.exit(EXIT_FAILED)
    log.info("initialised", extra={"fields": {"migrations": applied, "topics": created}})


def _migrate_when_there(settings: InitSettings, deadline: float) -> list[str]:
    while True:
        try:
            return migrate(settings.postgres.get_secret_value())
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)


def _declare_restored(settings: InitSettings) -> None:
    if settings.restored:
        raised = raise_after_restore(settings.postgres.get_secret_value(), settings.restored)
        log.info(
            "raised after a restore" if raised.anew else "was raised before for this restore",
            extra={"fields": {"restore": settings.restored, "incarnation": raised.incarnation, "epoch": raised.epoch,
                              "partitions": raised.partitions}},
        )  # fmt: skip


async def _apply_when_there(settings: InitSettings, topics: list[Topic], deadline: float) -> list[str]:
    while True:
        try:
            return await apply_topics(settings, topics, settings.replication)
        except KafkaConnectionError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    main()
