"""A process of the stack."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Part:
    """A process of the stack.

    Attributes:
        name: of its watcher and log, e.g. sample-joiner-1.
        service: what it is.
        replica: which one.
        port: where it listens.
        command: argument vector.
        environment: on top of the caller's.
        stop_signal: that ends it gently.
        grace_s: how long it may take to end.
        metrics: address of its /metrics, /healthz and /readyz, if it has one.
    """

    name: str
    service: str
    replica: int
    port: int
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: int = 15
    grace_s: float = 10.0
    metrics: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For the plan."""
        return asdict(self)
