"""Settings of the gateway."""

import re
from datetime import timedelta
from typing import Annotated, Final, Self

from headrace_core.settings import (
    ApiSettings,
    ControlSettings,
    DefinitionsSettings,
    KafkaSettings,
    RedisSettings,
    ServingSettings,
    TelemetrySettings,
    is_loopback,
)
from pydantic import BeforeValidator, Field, model_validator

_UNITS: Final = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_duration(value: object) -> object:
    """Read durations as people write them: 7d, 12h, 30m, 10s, 500ms; anything else is left to pydantic."""
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]+)(ms|s|m|h|d)", value.strip())):
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]


class GatewaySettings(
    KafkaSettings, RedisSettings, TelemetrySettings, DefinitionsSettings, ControlSettings, ServingSettings, ApiSettings
):
    """What the gateway is told from outside."""

    gateway_host: str = Field(
        default="127.0.0.1", description="Address to listen on; only loopback while there are no API keys."
    )
    gateway_port: int = Field(default=8080, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    gateway_startup_wait_ms: int = Field(
        default=10_000, ge=0, description="How long the start waits for Kafka and Redis; it then serves without them."
    )
    gateway_drain_ms: int = Field(
        default=10_000, ge=0, description="How long a stop waits for open requests, and as long for feature logs."
    )

    max_event_age: Duration = Field(
        default=timedelta(days=7), gt=timedelta(0), description="An older event is rejected; 7d, 12h, 30m, 10s."
    )
    max_event_ahead: Duration = Field(
        default=timedelta(minutes=5), ge=timedelta(0), description="An event further in the future is rejected."
    )
    max_clock_skew: Duration = Field(
        default=timedelta(seconds=10),
        gt=timedelta(0),
        description="sent_at further from the gateway's clock tells a wrong clock: event times are shifted by it.",
    )
    max_event_bytes: int = Field(
        default=65_536, ge=1_024, le=262_144, description="An event larger on the wire is rejected."
    )
    max_body_bytes: int = Field(default=8_388_608, ge=1_024, description="A larger request body is answered 413.")
    max_requests: int = Field(default=512, ge=1, description="More requests at once are answered 429.")
    max_events_in_flight: int = Field(
        default=50_000, ge=1_000, description="Events and catalog entries not yet acknowledged; more are answered 429."
    )

    produce_deadline_ms: int = Field(
        default=5_000, ge=100, description="Kafka must acknowledge a call within it, else it is answered 503."
    )
    enrich_deadline_ms: int = Field(
        default=250, ge=1, description="Catalog look-up of a call of events; later they go on without."
    )
    read_deadline_ms: int = Field(
        default=250, ge=1, description="One read of Redis for a recommendation; later it is served without."
    )
    predict_deadline_ms: int = Field(
        default=100, ge=1, description="The model must score a request within it; later popularity serves."
    )
    explore: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="With this probability the last place of a recommendation goes to an item drawn by chance.",
    )
    catalog_write_deadline_ms: int = Field(
        default=3_000, ge=10, description="Redis must show a catalog entry within it, else it is answered 503."
    )
    catalog_cache_ms: int = Field(
        default=1_000, ge=0, le=2_000, description="How long a catalog entry or ranked list is kept in the process."
    )
    catalog_cache_entries: int = Field(default=50_000, ge=1, description="At most so many of them.")
    snapshot_items: int = Field(
        default=200_000, ge=0, description="Items kept in memory as candidates of last resort; the rest are left out."
    )
    feature_log_buffer: int = Field(
        default=10_000, ge=1, description="Feature logs waiting for Kafka; the oldest are dropped and counted beyond."
    )
    feature_log_flush_ms: int = Field(
        default=100, ge=1, le=1_000, description="Feature logs are sent at least so often."
    )

    @model_validator(mode="after")
    def _only_loopback_without_keys(self) -> Self:
        if not (is_loopback(self.gateway_host) or self.api_keys.get_secret_value() or self.api_keys_file):
            raise ValueError(
                f"gateway_host={self.gateway_host}: without API keys the gateway listens on loopback only "
                "(127.0.0.1, ::1 or localhost)"
            )
        return self
