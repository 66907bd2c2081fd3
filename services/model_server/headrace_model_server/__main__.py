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

import grpc
from headrace_core.serving.messages import MAX_MESSAGE_BYTES
from headrace_core.telemetry import configure_logging, serve_metrics
from pydantic import ValidationError

from headrace_model_server.settings import ModelServerSettings

log = logging.getLogger("headrace_model_server")


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
    ready = threading.Event()
    serve_metrics(settings, lambda: None if ready.is_set() else "the versions that were served before")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    _serve(settings, ready, stop)


def _serve(settings: ModelServerSettings, ready: threading.Event, stop: threading.Event) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    # Takes seconds: imported here, so that /healthz answers meanwhile.
    from headrace_model_server.aspired import StateFile, aspired_models  # noqa: PLC0415
    from headrace_model_server.errors import InvalidError  # noqa: PLC0415
    from headrace_model_server.library import Library  # noqa: PLC0415
    from headrace_model_server.service import Service, add_service  # noqa: PLC0415

    drain = settings.model_server_drain_ms / 1000
    library = Library(settings.model_server_state / "artifacts", drain)
    state = StateFile(settings.model_server_state)
    library.start()
    try:
        library.aspire(aspired_models(state.read()))
    except InvalidError:
        log.exception("what was served before is not known, nothing is loaded")
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
    add_service(server, Service(library, state))
    address = f"{settings.model_server_host}:{settings.model_server_port}"
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        log.critical("%s can't be listened on", address)
        sys.exit(1)
    server.start()
    ready.set()
    log.info("listening", extra={"fields": {"address": f"{settings.model_server_host}:{port}"}})
    stop.wait()
    ready.clear()
    server.stop(drain).wait()
    library.stop()
    log.info("stopped")


if __name__ == "__main__":
    main()
