"""Settings of the trainer."""

from pathlib import Path

from headrace_core.settings import (
    ControlSettings,
    DefinitionsSettings,
    KafkaSettings,
    ModelsSettings,
    PostgresSettings,
    TelemetrySettings,
)
from pydantic import Field


class TrainerSettings(
    KafkaSettings, PostgresSettings, ControlSettings, ModelsSettings, DefinitionsSettings, TelemetrySettings
):
    """What the trainer needs, and its own."""

    train_model: str = Field(default="ctr", description="Name of the model whose increments are trained.")
    train_state: Path = Field(
        default=Path("/var/lib/headrace/trainer"), description="Folder of the incremental training's checkpoints."
    )
    train_every_ms: int = Field(
        default=0, ge=0, description="An increment is exported so often; 0: as often as the model's definition says."
    )
    train_checkpoint_ms: int = Field(default=10_000, ge=1, description="Longest time between two checkpoints.")
    train_batch_wait_ms: int = Field(
        default=500, ge=0, description="How long a batch waits for more samples before it is learned though not full."
    )
    train_threads: int = Field(
        default=1, ge=1, description="Threads that compute; another number gives other last bits of the weights."
    )
    train_plans_ms: int = Field(
        default=604_800_000, ge=0, description="How long it is kept which offsets made which batch."
    )
