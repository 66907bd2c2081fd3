"""Which version of the model serves, as the control plane tells; what is known outlives its outages."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import Final

from headrace_core.control.client import ControlClient, ControlError, ModelVersion
from headrace_core.definitions.models import Model, input_of
from headrace_core.learning.inputs import InputColumns
from prometheus_client import Gauge

from headrace_gateway.essential import essential_task

log = logging.getLogger(__name__)

_VERSION: Final = Gauge("headrace_model_version", "Version that serves.", ["model", "track"])
_TRACK: Final = "stable"
_DEPLOYED: Final = "MODEL_DEPLOYED"
_RETRY_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Deployed:
    """A version that was deployed.

    Attributes:
        version: its number.
        inputs: names of the columns that it reads.
        columns: makes them, as it was trained with them, whatever the model's definition says by now.
    """

    version: int
    inputs: tuple[str, ...]
    columns: InputColumns


class DeployedModel:
    """Follows the deployed version of one model.

    Args:
        control: the control plane.
        model: definition of the model.

    Attributes:
        known: whether the control plane has told what is deployed, be it nothing; from then on `current` holds.
        current: the version that serves.
        previous: the one before.
    """

    def __init__(self, control: ControlClient, model: Model) -> None:
        self.name = model.name
        self._control, self._model = control, model
        self._task: asyncio.Task[None] | None = None
        self.known = False
        self.current: Deployed | None = None
        self.previous: Deployed | None = None

    def start(self) -> None:
        """Follow from now on."""
        self._task = essential_task(self._follow(), "deployed model")

    async def stop(self) -> None:
        """Follow no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._control.aclose()

    def define(self, model: Model) -> None:
        """Another definition is in force; what serves is not touched by it."""
        self._model = model

    async def _follow(self) -> None:
        after: int | None = None
        while True:
            try:
                if after is None:
                    # Asked before the version: what is deployed in between is told by an event.
                    newest = await self._control.newest()
                    await self._ask()
                    after = newest
                async for event in self._control.listen(keys=[self.name], after=after):
                    if event.type == _DEPLOYED and event.context.get("track", _TRACK) == _TRACK:
                        await self._ask()
                    after = event.offset
            except ControlError as error:
                log.warning(
                    "the control plane does not tell what is deployed", extra={"fields": {"error": error.detail}}
                )
                await asyncio.sleep(_RETRY_SECONDS)

    async def _ask(self) -> None:
        """Take what is deployed now: an event may be old, and another version deployed since."""
        if (found := await self._control.deployed(self.name, _TRACK)) is not None:
            self.take(found)
        self.known = True

    def take(self, found: ModelVersion) -> None:
        """Serve a version from the next request on, unless it reads what this process does not know."""
        current = self.current
        if current is not None and current.version == found.version:
            return
        fields = {"model": self.name, "version": found.version}
        defined = {i.name: i for i in self._model.inputs}
        # A version tells how its inputs are read; of one that does not, the definition of this moment does.
        read = {
            told["name"]: input_of(told["name"], told["reads"]) if "reads" in told else defined.get(told["name"])
            for told in found.manifest.get("inputs", ())
        } or defined
        if missing := [name for name, made in read.items() if made is None]:
            log.error("a version reads inputs that are not defined", extra={"fields": fields | {"inputs": missing}})
            return
        columns = InputColumns([made for made in read.values() if made is not None])
        self.previous, self.current = current, Deployed(found.version, tuple(read), columns)
        _VERSION.labels(self.name, _TRACK).set(found.version)
        log.info("a version serves", extra={"fields": fields})
