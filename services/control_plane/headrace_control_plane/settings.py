"""Settings of the control plane."""

import socket
import tempfile
from pathlib import Path
from typing import Literal, Self

from headrace_core.settings import (
    ApiSettings,
    CallerSettings,
    KafkaSettings,
    PostgresSettings,
    TelemetrySettings,
    is_loopback,
)
from pydantic import Field, SecretStr, model_validator


class ControlPlaneSettings(KafkaSettings, PostgresSettings, TelemetrySettings, CallerSettings, ApiSettings):
    """What the control plane is told from outside."""

    control_host: str = Field(
        default="127.0.0.1", description="Address to listen on; only loopback while there are no API keys."
    )
    control_port: int = Field(default=8090, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    control_connections: int = Field(default=8, ge=4, description="Most connections to PostgreSQL.")
    control_poll_ms: int = Field(
        default=1_000, ge=10, description="The scheduler and long polls look again after so long, notified or not."
    )
    executor: Literal["process", "kubernetes"] = Field(
        default="process",
        description="What carries out runs: processes of this machine and its process manager, or Jobs and Deployments of "
        "Kubernetes.",
    )
    job_template: Path = Field(
        default=Path("/etc/headrace/job-template.yaml"),
        description="With executor kubernetes: the Job of a run, as the chart mounts it.",
    )
    kubernetes_api: str = Field(
        default="", description="URL of Kubernetes' API server; empty for the one that the pod is told of."
    )
    kubernetes_account: Path = Field(
        default=Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        description="Folder with the service account's token, which is read again at each call, and ca.crt.",
    )
    process_manager: str = Field(
        default="",
        description="Endpoint of the process manager (circus) that keeps the streaming tasks; empty for none.",
    )
    runs: Path | None = Field(
        default=None, description="Folder of the runs' logs; without it a folder for temporary files."
    )
    workflows: Path | None = Field(
        default=None,
        description="Folder of workflows that are active from the start, unless somebody uploaded one of the name; empty for none.",
    )
    run_lost_ms: int = Field(
        default=60_000,
        ge=1_000,
        description="A run that was not heard of for so long is lost: it is retried, or failed.",
    )
    run_stop_ms: int = Field(
        default=20_000, ge=100, description="A run that was told to stop and has not ended after so long is killed."
    )

    console_targets: str = Field(
        default="",
        description="Whose /metrics the console reads: a path to stack.json, or URLs separated by commas, each as service=URL; "
        "empty for none.",
    )

    console_secret: SecretStr = Field(
        default=SecretStr(""),
        description="Signs the console's sessions, the same at every replica; without it one is made at each start.",
    )

    @model_validator(mode="after")
    def _only_loopback_without_keys(self) -> Self:
        if not (is_loopback(self.control_host) or self.api_keys.get_secret_value() or self.api_keys_file):
            raise ValueError(
                f"control_host={self.control_host}: without API keys the control plane listens on loopback only "
                "(127.0.0.1, ::1 or localhost)"
            )
        return self

    @property
    def runs_folder(self) -> Path:
        """Where the logs of runs are written."""
        return self.runs or Path(tempfile.gettempdir()) / "headrace-runs"

    @property
    def url_here(self) -> str:
        """How processes on this machine reach it."""
        return f"http://{self.control_host}:{self.control_port}"

    @property
    def hostname(self) -> str:
        """The machine, on which pids mean something."""
        return socket.gethostname()
