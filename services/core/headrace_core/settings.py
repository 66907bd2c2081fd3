"""Settings shared by the services; each service's own class is built from these parts.

Every field is read from the environment as HEADRACE_<FIELD>, or from a file of that name in the folder
HEADRACE_SECRETS_DIR. This module is the one place where a shared setting is written down; charts, docs and the embedded
stack are tested against it.
"""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class HeadraceSettings(BaseSettings):
    """Base of every settings class: prefix HEADRACE_, secrets by file or environment, frozen."""

    model_config = SettingsConfigDict(
        env_prefix="HEADRACE_",
        frozen=True,
        extra="ignore",
        secrets_dir=os.environ.get("HEADRACE_SECRETS_DIR"),
    )


class KafkaSettings(HeadraceSettings):
    """How to reach Kafka and how its consumers behave."""

    kafka: str = Field(default="127.0.0.1:9092", description="Bootstrap servers, host:port separated by commas.")
    kafka_session_timeout_ms: int = Field(
        default=6_000, ge=1_000, description="A member silent for so long loses its partitions; heartbeat is a sixth."
    )
    kafka_request_timeout_ms: int = Field(default=20_000, ge=1_000, description="Longest wait for a broker's answer.")
    kafka_fetch_wait_ms: int = Field(default=50, ge=1, description="How long a fetch waits at an idle partition.")
    group_prefix: str = Field(default="headrace", description="Consumer groups are named <prefix>.<job>.")
    kafka_security_protocol: Annotated[str, Field(pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$")] = Field(
        default="PLAINTEXT",
        description="How its listener is spoken to: by TLS or not, by a user with a password or not.",
    )
    kafka_sasl_mechanism: Annotated[str, Field(pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$")] = Field(
        default="SCRAM-SHA-512", description="How the password is shown to it."
    )
    kafka_user: str = Field(default="", description="The user, where the protocol has one.")
    kafka_password: SecretStr = Field(default=SecretStr(""), description="The user's password.")
    kafka_ca_file: Path | None = Field(
        default=None, description="PEM file of who signed its certificate; the system's own authorities without it."
    )
    kafka_certificate_file: Path | None = Field(
        default=None, description="PEM file of our own certificate, where it asks for one."
    )
    kafka_key_file: Path | None = Field(default=None, description="PEM file of that certificate's key.")

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        protocol, password = self.kafka_security_protocol, self.kafka_password.get_secret_value()
        if protocol.startswith("SASL") and not (self.kafka_user and password):
            raise ValueError(f"Kafka's {protocol} takes a user: set HEADRACE_KAFKA_USER and HEADRACE_KAFKA_PASSWORD")
        if (self.kafka_certificate_file is None) != (self.kafka_key_file is None):
            raise ValueError("set both of HEADRACE_KAFKA_CERTIFICATE_FILE and HEADRACE_KAFKA_KEY_FILE, or neither")
        return self


class PostgresSettings(HeadraceSettings):
    """How to reach PostgreSQL."""

    postgres: SecretStr = Field(
        default=SecretStr("postgresql://headrace@127.0.0.1:5432/headrace"), description="DSN of the database."
    )


class RedisSettings(HeadraceSettings):
    """How to reach Redis or Valkey."""

    redis: SecretStr = Field(default=SecretStr("redis://127.0.0.1:6379/0"), description="URL of Redis or Valkey 7+.")
    redis_timeout_ms: int = Field(default=1_000, ge=1, description="Longest wait for an answer of Redis.")


class LakeSettings(HeadraceSettings):
    """Where history is kept."""

    lake: str = Field(default="file:///var/lib/headrace/lake", description="URL of the lake's root, any fsspec scheme.")


class CallerSettings(HeadraceSettings):
    """What calls of HTTP APIs bring; the command line reads it as well."""

    api_key: SecretStr = Field(
        default=SecretStr(""), description="API key that is sent to the control plane and the gateway."
    )
    api_key_file: Path | None = Field(
        default=None, description="File that holds it; read again when it changes. HEADRACE_API_KEY goes before it."
    )


class ControlSettings(CallerSettings):
    """How to reach the control plane."""

    control: str = Field(default="http://127.0.0.1:8090", description="URL of the control plane.")


class ApiSettings(HeadraceSettings):
    """Who may call the HTTP API, how often, and how slowly; docs/security.md tells more."""

    api_keys: SecretStr = Field(
        default=SecretStr(""),
        description="Hashed API keys as `headrace keys new` prints them, separated by semicolons.",
    )
    api_keys_file: Path | None = Field(
        default=None, description="File of such lines, or folder of such files; read again when they change."
    )
    rate_limit: float = Field(
        default=0.0,
        ge=0.0,
        description="Requests a second of one key, or of one address where there are no keys, at each replica; 0 for any number.",
    )
    rate_burst: int = Field(default=100, ge=1, description="So many of them at once.")
    body_timeout_ms: int = Field(
        default=10_000, ge=100, description="A body that takes longer to come is answered 408."
    )
    head_timeout_ms: int = Field(
        default=10_000, ge=100, description="A connection that takes longer to tell its request is closed."
    )


class ModelsSettings(HeadraceSettings):
    """Where the artifacts of models are."""

    models: str = Field(
        default="file:///var/lib/headrace/models", description="URL of the models' root, any fsspec scheme."
    )


class ServingSettings(HeadraceSettings):
    """Which model serves, and who answers for it."""

    model: str = Field(default="ctr", description="Name of the model that serves.")
    model_server: str = Field(
        default="127.0.0.1:8500", description="Address of the model servers, host:port; a name may stand for several."
    )


class TelemetrySettings(HeadraceSettings):
    """Logs, metrics and health."""

    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = Field(
        default="INFO", description="Lowest level that is logged."
    )
    log_format: Annotated[str, Field(pattern="^(json|text)$")] = Field(
        default="json", description="json for machines, text for people."
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address of /metrics, /healthz and /readyz of workers.")
    metrics_port: int = Field(default=9100, ge=0, le=65_535, description="Their port.")


class DefinitionsSettings(HeadraceSettings):
    """Where the definitions of features, samples and topics are."""

    definitions: Path = Field(default=Path("definitions"), description="Folder with features/, samples/, topics/.")


class StreamSettings(HeadraceSettings):
    """Time and checkpoints of the stream workers."""

    replica: str = Field(default="0", description="Name of this replica, unique among the workers of one service.")
    checkpoint_interval_ms: int = Field(default=250, ge=10, description="Longest time between two checkpoints.")
    checkpoint_rows: int = Field(default=10_000, ge=1, description="A checkpoint is made earlier at so many effects.")
    lateness_ms: int = Field(default=10_000, ge=0, description="How much later than the newest an event may come.")
    idle_after_ms: int = Field(default=1_000, ge=10, description="An input with nothing to read for so long is idle.")
    max_drift_ms: int = Field(
        default=60_000, ge=0, description="In catch-up, an input ahead of its slowest sibling by more is paused."
    )
    dedupe_window_ms: int = Field(default=600_000, ge=0, description="How long an event_id is remembered.")
    stop_after_failing_ms: int = Field(
        default=60_000, ge=1_000, description="A checkpoint that fails for so long ends the process."
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
