"""Settings of the sample joiner."""

from headrace_core.runtime.worker import WorkerSettings
from headrace_core.settings import ControlSettings
from pydantic import Field


class SampleJoinerSettings(WorkerSettings, ControlSettings):
    """What a stream worker needs, and the joiner's own."""

    attribution_window_ms: int | None = Field(
        default=None, ge=1_000, description="Replaces the window of the sample set."
    )
    joined_mark_ms: int = Field(
        default=60_000, ge=1_000, description="Distance of the marks that tell until when samples are complete."
    )
