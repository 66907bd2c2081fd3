"""Runs the gateway: `python -m headrace_gateway`.

Exit codes: 0 after SIGTERM or SIGINT with everything drained, 1 when it failed (port taken, a background part died), 2 for settings
or feature definitions that can't be.
"""

import gc
import logging
import signal
import socket
import sys

import uvicorn
import uvloop
from headrace_core.definitions.features import DefinitionError, Feature, watch_features
from headrace_core.definitions.models import Model, watch_models
from headrace_core.definitions.watch import Watch
from headrace_core.telemetry import configure_logging
from headrace_core.web.guard import Guard, open_guard
from headrace_core.web.keys import KeysError
from headrace_core.web.server import patient_for
from pydantic import ValidationError

from headrace_gateway.essential import DEATHS, essential_task
from headrace_gateway.parts import assemble
from headrace_gateway.ranking.in_force import in_force
from headrace_gateway.settings import GatewaySettings
from headrace_gateway.web.app import create_app
from headrace_gateway.web.shell import RequestIdFilter

log = logging.getLogger("headrace_gateway")


def main() -> None:
    """Entry point of the console script."""
    try:
        settings = GatewaySettings()
    except ValidationError as error:
        for fault in error.errors():
            field = "_".join(str(part) for part in fault["loc"]).upper()
            sys.stderr.write(f"headrace-gateway: {f'HEADRACE_{field}: ' if field else ''}{fault['msg']}\n")
        sys.exit(2)
    try:
        features = watch_features(settings.definitions / "features")
        models = watch_models(settings.definitions / "models")
        guard = open_guard(settings, settings.gateway_host, "the gateway")
    except (DefinitionError, KeysError, OSError) as error:
        sys.stderr.write(f"headrace-gateway: {error}\n")
        sys.exit(2)
    configure_logging(settings)
    for handler in logging.getLogger().handlers:
        handler.addFilter(RequestIdFilter())
    try:
        listener = _listen(settings)
    except OSError as error:
        log.critical("%s:%d can't be listened on: %s", settings.gateway_host, settings.gateway_port, error.strerror)
        sys.exit(1)
    # uvicorn raises the signal that ended it once more after its shutdown; the exit code is ours to tell.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    uvloop.run(_serve(settings, features, models, guard, listener))
    sys.exit(1 if DEATHS else 0)


def _listen(settings: GatewaySettings) -> socket.socket:
    family, kind, proto, _, address = socket.getaddrinfo(
        settings.gateway_host, settings.gateway_port, type=socket.SOCK_STREAM
    )[0]
    listener = socket.socket(family, kind, proto)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(1_024)
    except OSError:
        listener.close()
        raise
    return listener


async def _serve(
    settings: GatewaySettings,
    features: Watch[list[Feature]],
    models: Watch[dict[str, Model]],
    guard: Guard,
    listener: socket.socket,
) -> None:
    parts = assemble(settings, in_force(features.taken), models.taken.get(settings.model))
    app = create_app(settings, parts, guard)
    # What stands by now stays: left out of every later collection, which would stop all requests for some 60 ms each time.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        http=patient_for(settings.head_timeout_ms / 1000),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, settings.gateway_drain_ms // 1000),
    )
    log.info("listening", extra={"fields": {"address": "http://{}:{}".format(*listener.getsockname()[:2])}})
    following = (
        essential_task(features.follow(parts.take_features), "the watch over features"),
        essential_task(models.follow(parts.take_models), "the watch over models"),
    )
    await uvicorn.Server(config).serve(sockets=[listener])
    for task in following:
        task.cancel()


if __name__ == "__main__":
    main()
