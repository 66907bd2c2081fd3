"""Runs the control plane: `python -m headrace_control_plane`.

Exit codes: 0 after SIGTERM or SIGINT, 1 when it failed (port taken, a background part died), 2 for settings that can't be.
"""

import logging
import signal
import socket
import sys

import uvicorn
import uvloop
from headrace_core.telemetry import configure_logging
from headrace_core.web.guard import Guard, open_guard
from headrace_core.web.keys import KeysError
from headrace_core.web.server import patient_for
from headrace_core.workflow import WorkflowError
from pydantic import ValidationError

from headrace_control_plane.essential import DEATHS
from headrace_control_plane.executors.executor import ExecutorError
from headrace_control_plane.parts import Parts, assemble
from headrace_control_plane.settings import ControlPlaneSettings
from headrace_control_plane.web.app import create_app

log = logging.getLogger("headrace_control_plane")


def main() -> None:
    """Entry point of the console script."""
    try:
        settings = ControlPlaneSettings()
    except ValidationError as error:
        for fault in error.errors():
            field = "_".join(str(part) for part in fault["loc"]).upper()
            sys.stderr.write(f"headrace-control-plane: {f'HEADRACE_{field}: ' if field else ''}{fault['msg']}\n")
        sys.exit(2)
    try:
        guard = open_guard(settings, settings.control_host, "the control plane")
    except KeysError as error:
        sys.stderr.write(f"headrace-control-plane: {error}\n")
        sys.exit(2)
    configure_logging(settings)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its failures are told by the relay
    try:
        listener = socket.create_server((settings.control_host, settings.control_port), backlog=1_024)
    except OSError as error:
        log.critical("%s:%d can't be listened on: %s", settings.control_host, settings.control_port, error.strerror)
        sys.exit(1)
    # uvicorn raises the signal that ended it once more after its shutdown; the exit code is ours to tell.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        uvloop.run(_serve(settings, guard, listener))
    except ExecutorError as error:
        log.critical("runs can't be carried out: %s", error)
        sys.exit(2)
    except WorkflowError as error:
        log.critical("a shipped workflow is wrong: %s", error)
        sys.exit(2)
    sys.exit(1 if DEATHS else 0)


class _Server(uvicorn.Server):
    """Tells the parts at once that it stops, so that long polls and streams end."""

    def __init__(self, config: uvicorn.Config, parts: Parts) -> None:
        super().__init__(config)
        self._parts = parts

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        self._parts.stopping = True
        self._parts.bell.ring()
        await super().shutdown(sockets)


async def _serve(settings: ControlPlaneSettings, guard: Guard, listener: socket.socket) -> None:
    url = "http://{}:{}".format(*listener.getsockname()[:2])
    parts = assemble(settings, url)
    config = uvicorn.Config(
        create_app(parts, url, guard),
        http=patient_for(settings.head_timeout_ms / 1000),
        ws="websockets-sansio",  # the pages of the console
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    if guard.keyring is not None and not (settings.api_key.get_secret_value() or settings.api_key_file):
        log.warning(
            "runs can't call back: neither HEADRACE_API_KEY nor HEADRACE_API_KEY_FILE is set, and keys are needed"
        )
    log.info("listening", extra={"fields": {"address": url}})
    await _Server(config, parts).serve(sockets=[listener])


if __name__ == "__main__":
    main()
