"""Settings of the model validator and the deployer."""

from headrace_core.settings import (
    ControlSettings,
    DefinitionsSettings,
    ModelsSettings,
    PostgresSettings,
    ServingSettings,
    TelemetrySettings,
)
from pydantic import Field


class ModelValidatorSettings(
    ControlSettings, ModelsSettings, ServingSettings, PostgresSettings, DefinitionsSettings, TelemetrySettings
):
    """What validator and deployer are told from outside."""

    validate_requests: int = Field(
        default=2_000, ge=1, description="So many of the newest held-out requests are scored by both versions."
    )
    validate_window_ms: int = Field(
        default=600_000, ge=1_000, description="Held-out samples count so far back from the newest of them."
    )
    validate_latency_ratio: float = Field(
        default=3.0, gt=0, description="A candidate's median latency may be so many times the deployed version's."
    )
    validate_latency_floor_ms: float = Field(
        default=20.0, ge=0, description="A candidate whose median latency is below is fast enough in any case."
    )
    load_timeout_ms: int = Field(
        default=60_000, ge=1_000, description="Every model server must have loaded a version within it."
    )
    deploy_grace_ms: int = Field(
        default=5_000, ge=0, description="How long the version before stays loaded beside the one that replaced it."
    )
