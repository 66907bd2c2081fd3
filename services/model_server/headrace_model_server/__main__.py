"""Runs the model server: `python -m headrace_model_server`.

Exit codes: 0 after SIGTERM or SIGINT, 1 when it can't listen, 2 for settings that can't be.
"""

import gc
import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import grpc
from headrace_core.serving.messages import MAX_MESSAGE_BYTES
from headrace_core.telemetry import configure_logging, serve_metrics
from pydantic import ValidationError

from headrace_model_server.follower import Follower
from headrace_model_server.settings import ModelServerSettings

if TYPE_CHECKING:
    from headrace_model_server.aspirations import Aspirations

log = logging.getLogger("headrace_model_server")

_POLL_SECONDS: Final = 0.1


def main() -> None:
    """Entry point of the console script."""
    try:
        settings = ModelServerSettings()
    except ValidationError as error:
        for fault in error.errors():
            field = "_".join(str(part) for part in fault["loc"]).upper()
            sys.stderr.write(f"headrace-model-server: HEADRACE_{field}: {fault['msg']}\n")
        sys.exit(2)
    configure_logging(settings)
    readiness = Readiness()
    serve_metrics(settings, readiness.missing)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    _serve(settings, readiness, stop)


class Readiness:
    """What /readyz tells."""

    def __init__(self) -> None:
        self._missing: str | None = "the versions that were served before"

    def missing(self) -> str | None:
        """What is missing."""
        return self._missing

    def wait_for(self, what: str | None) -> None:
        """This is missing from now on, or nothing."""
        self._missing = what


def _serve(settings: ModelServerSettings, readiness: Readiness, stop: threading.Event) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    # Takes seconds: imported here, so that /healthz answers meanwhile.
    from headrace_model_server.aspirations import Aspirations  # noqa: PLC0415
    from headrace_model_server.aspired import StateFile  # noqa: PLC0415
    from headrace_model_server.library import Library  # noqa: PLC0415
    from headrace_model_server.service import Service, add_service  # noqa: PLC0415

    drain = settings.model_server_drain_ms / 1000
    library = Library(settings.model_server_state / "artifacts", drain)
    model = settings.model_server_follows
    aspirations = Aspirations(
        library, StateFile(settings.model_server_state), model, f"{settings.models.rstrip('/')}/{model}"
    )
    library.start()
    follower = Follower(settings.control, model, aspirations.deployed) if model else None
    if follower is not None:
        follower.start()
        _hear(follower, aspirations, readiness, stop)
    aspirations.begin()
    # Not before: who is told NOT_FOUND takes another version, who can't connect tries again.
    library.wait_settled()
    gc.collect()
    gc.freeze()  # TensorFlow's own objects never go; looking through them again and again stops requests
    server = grpc.server(
        ThreadPoolExecutor(settings.threads, thread_name_prefix="predict"),
        maximum_concurrent_rpcs=settings.model_server_queue,
        options=(
            ("grpc.so_reuseport", 0),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ),
    )
    add_service(server, Service(library, aspirations))
    address = f"{settings.model_server_host}:{settings.model_server_port}"
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        log.critical("%s can't be listened on", address)
        sys.exit(1)
    server.start()
    log.info("listening", extra={"fields": {"address": f"{settings.model_server_host}:{port}"}})
    _tend(aspirations, readiness, stop)
    if follower is not None:
        follower.stop()
    server.stop(drain).wait()
    library.stop()
    log.info("stopped")


def _hear(follower: Follower, aspirations: "Aspirations", readiness: Readiness, stop: threading.Event) -> None:
    """Wait until it is known what is deployed. Who served before goes on with that while the control plane is away."""
    readiness.wait_for("the control plane, which knows what is deployed")
    heard = follower.waited if aspirations.known else follower.answered
    while not heard.wait(_POLL_SECONDS) and not stop.is_set():
        pass


def _tend(aspirations: "Aspirations", readiness: Readiness, stop: threading.Event) -> None:
    """See to the deployed version until the stop; ready once it is there, and then to the end."""
    ready = False
    while True:
        missing = aspirations.lacks()
        if not ready:
            ready = missing is None or aspirations.hopeless
            if missing is not None and ready:
                log.error("ready without what is deployed", extra={"fields": {"missing": missing}})
            readiness.wait_for(None if ready else missing)
        if stop.wait(_POLL_SECONDS):
            readiness.wait_for("the end")
            return


if __name__ == "__main__":
    main()
