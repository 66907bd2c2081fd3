"""Structured logs, metrics and health endpoints."""

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

from headrace_core.settings import TelemetrySettings

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

EVENTS: Final = Counter("headrace_events_total", "Events taken, by service and topic.", ["service", "topic"])
REJECTED: Final = Counter("headrace_rejected_total", "Events refused, by reason.", ["reason"])
REQUEST_SECONDS: Final = Histogram(
    "headrace_request_seconds", "Time to answer a request.", ["route", "status"], buckets=SECONDS
)
STAGE_SECONDS: Final = Histogram("headrace_stage_seconds", "Time of one stage of work.", ["stage"], buckets=SECONDS)
DEGRADED: Final = Counter("headrace_degraded_total", "Answers given without something, by reason.", ["reason"])
FRESHNESS_SECONDS: Final = Histogram(
    "headrace_freshness_seconds", "From the event to its effect, by stage.", ["stage"], buckets=SECONDS
)
WATERMARK_LAG_SECONDS: Final = Gauge("headrace_watermark_lag_seconds", "Now minus the watermark.", ["job", "partition"])
CHECKPOINT_SECONDS: Final = Histogram(
    "headrace_checkpoint_seconds", "Time of one checkpoint transaction.", ["job"], buckets=SECONDS
)
DEAD_LETTERS: Final = Counter("headrace_dead_letters_total", "Records set aside.", ["topic", "reason"])


#: What begins as an API key does; none belongs into a log, whoever's line it was.
_KEYS: Final = re.compile(r"\bhr_[A-Za-z0-9_-]{20,}")


class WithoutKeys(logging.Formatter):
    """Takes API keys out of what another formatter made."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Render the record."""
        return _KEYS.sub("hr_***", self._inner.format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and what was given as `extra={"fields": {…}}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record."""
        body: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        body.update(getattr(record, "fields", {}))
        if record.exc_info:
            body["exception"] = self.formatException(record.exc_info)
        return json.dumps(body, default=str)


def configure_logging(settings: TelemetrySettings) -> None:
    """Send all logs to stderr in the configured form."""
    handler = logging.StreamHandler(sys.stderr)
    formatter: logging.Formatter = (
        JsonFormatter()
        if settings.log_format == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    )
    formatter.converter = time.gmtime
    handler.setFormatter(WithoutKeys(formatter))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line a call says nothing that metrics do not


def serve_metrics(settings: TelemetrySettings, ready: Callable[[], str | None]) -> int:
    """Serve /metrics, /healthz and /readyz from a thread; give back the port.

    Args:
        settings: where to listen.
        ready: None when the worker can do its work, else what is missing, which /readyz answers with 503.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, generate_latest(REGISTRY), CONTENT_TYPE_LATEST)
            elif self.path == "/healthz":
                self._answer(200, b'{"status": "alive"}', "application/json")
            elif self.path == "/readyz":
                missing = ready()
                body = json.dumps({"status": "ready"} if missing is None else {"status": "waiting", "for": missing})
                self._answer(200 if missing is None else 503, body.encode(), "application/json")
            else:
                self._answer(404, b"", "text/plain")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Probes are no news."""

    server = ThreadingHTTPServer((settings.metrics_host, settings.metrics_port), Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return int(server.server_address[1])
