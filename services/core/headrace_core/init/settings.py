"""Settings of the init job."""

from pydantic import Field

from headrace_core.settings import DefinitionsSettings, KafkaSettings, PostgresSettings, TelemetrySettings


class InitSettings(KafkaSettings, PostgresSettings, TelemetrySettings, DefinitionsSettings):
    """What the init job needs, and its own."""

    partitions: int | None = Field(
        default=None, ge=1, description="Partitions of every topic with more than one, when first created."
    )
    replication: int = Field(default=1, ge=1, description="Replicas of a topic; all but one must be in sync.")
    init_wait_ms: int = Field(
        default=0, ge=0, description="How long the job waits for Kafka and PostgreSQL to be there."
    )
    restored: str = Field(
        default="",
        description="Name of a restore of PostgreSQL from a backup, a new one each time: raises incarnation and epochs, once.",
    )
