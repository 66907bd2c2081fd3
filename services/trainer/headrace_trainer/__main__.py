"""`headrace-trainer`: wiring only."""

import asyncio
import logging
import signal

from aiokafka.errors import KafkaError
from headrace_core.control.client import ControlClient
from headrace_core.definitions.models import Model, ModelError, watch_models
from headrace_core.definitions.watch import Watch
from headrace_core.runtime.dead_letters import DeadLetterWriter
from headrace_core.runtime.kafka_clients import idempotent_producer
from headrace_core.telemetry import configure_logging, serve_metrics

from headrace_trainer.network.learner import pin_threads
from headrace_trainer.settings import TrainerSettings
from headrace_trainer.stream.feed import GoneError
from headrace_trainer.stream.service import STARTING, IncrementalTrainer, InUseError

log = logging.getLogger(__name__)


async def serve(settings: TrainerSettings) -> None:
    """Train increments until SIGTERM, or until the model is defined otherwise: weights are of one definition."""
    watch = watch_models(settings.definitions / "models")
    model = watch.taken[settings.train_model]
    async with ControlClient(settings.control, "trainer") as control:
        dead = DeadLetterWriter("trainer", lambda: idempotent_producer(settings))
        trainer = IncrementalTrainer(model, settings, control, dead)
        # Waiting for a base is its work, too: without samples nobody has one.
        serve_metrics(settings, lambda: "the control plane" if trainer.waiting_for == STARTING else None)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, trainer.stop)
        ending = asyncio.create_task(_stop_when_redefined(trainer, watch, model))
        try:
            await trainer.run()
        finally:
            ending.cancel()
            await dead.close()


async def _stop_when_redefined(trainer: IncrementalTrainer, watch: Watch[dict[str, Model]], model: Model) -> None:
    await watch.renewed(lambda models: models.get(model.name) != model)
    trainer.stop()


def main() -> None:
    """Entry point."""
    settings = TrainerSettings()
    configure_logging(settings)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every call
    pin_threads(settings.train_threads)
    try:
        asyncio.run(serve(settings))
    except (ModelError, KeyError, InUseError, GoneError) as error:
        log.critical("%s", error)
        raise SystemExit(1) from error
    except (OSError, KafkaError) as error:
        log.critical("a dependency is away: %s", error)
        raise SystemExit(3) from error


if __name__ == "__main__":
    main()
