"""Settings of the model server."""

import os
import tempfile
from pathlib import Path

from headrace_core.settings import ControlSettings, ModelsSettings, TelemetrySettings
from pydantic import Field


class ModelServerSettings(ControlSettings, ModelsSettings, TelemetrySettings):
    """What the model server is told from outside."""

    model_server_host: str = Field(default="127.0.0.1", description="Address to listen on.")
    model_server_port: int = Field(default=8500, ge=0, le=65_535, description="Port of gRPC; 0 takes a free one.")
    model_server_threads: int = Field(
        default=0, ge=0, le=256, description="Requests answered at the same time; 0 takes one for each core."
    )
    model_server_queue: int = Field(
        default=256, ge=1, description="Requests that may wait or be answered; more are refused at once."
    )
    model_server_drain_ms: int = Field(
        default=5_000, ge=0, description="How long a stop, or unloading a version, waits for its requests."
    )
    model_server_state: Path = Field(
        default=Path(tempfile.gettempdir()) / "headrace-model-server",
        description="Folder for what is to be served after a restart, and for copies of artifacts that are not on a disk.",
    )
    model_server_follows: str = Field(
        default="",
        description="Model whose deployed version, by the control plane, is loaded without being told, and before the server is "
        "ready; empty: what calls tell is all that is served.",
    )

    @property
    def threads(self) -> int:
        """Requests answered at the same time."""
        return self.model_server_threads or os.cpu_count() or 1
