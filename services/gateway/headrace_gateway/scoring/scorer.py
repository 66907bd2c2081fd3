"""Scores of the deployed model, or why there are none."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from headrace_core.serving.client import AwayError, ModelServerClient, NotLoadedError, ServingError
from headrace_core.telemetry import STAGE_SECONDS

from headrace_gateway.ranking.features import Features
from headrace_gateway.ranking.schema import MODEL_UNAVAILABLE, NO_MODEL
from headrace_gateway.scoring.deployed import Deployed, DeployedModel

log = logging.getLogger(__name__)

_COLUMNS: Final = STAGE_SECONDS.labels("columns")
_PREDICT: Final = STAGE_SECONDS.labels("predict")
_SCORE: Final = "score"


@dataclass(frozen=True, slots=True)
class Scores:
    """What a version says of the items.

    Attributes:
        model: its name.
        version: that scored.
        scores: probability of a click, in the order of the items.
    """

    model: str
    version: int
    scores: Sequence[float]


class Scorer:
    """Asks the model servers.

    Args:
        deployed: which version serves.
        client: of the model servers.
        deadline_seconds: for all attempts of one request together.
    """

    def __init__(self, deployed: DeployedModel, client: ModelServerClient, deadline_seconds: float) -> None:
        self.deployed, self._client, self._deadline = deployed, client, deadline_seconds

    def start(self) -> None:
        """Follow what is deployed."""
        self.deployed.start()

    async def stop(self) -> None:
        """Close the connections."""
        await self.deployed.stop()
        await self._client.close()

    async def score(self, user_id: str, page_id: str, items: Sequence[str], features: Features) -> Scores | str:
        """Scores of the items, or the reason for `degraded`.

        The version is that of this moment, also when another one is deployed while it answers; a server that has let go of
        it is asked for the one before.
        """
        current, previous = self.deployed.current, self.deployed.previous
        if current is None:
            return NO_MODEL if self.deployed.known else MODEL_UNAVAILABLE
        ends = asyncio.get_running_loop().time() + self._deadline
        told = [(item, features.item(item)) for item in items]
        try:
            for version in (current, previous):
                if version is None:
                    break
                try:
                    return await self._ask(version, user_id, page_id, told, features, ends)
                except NotLoadedError as error:
                    log.warning("a version is not there", extra={"fields": {"error": str(error)}})
        except ServingError as error:
            log.warning("no scores", extra={"fields": {"error": str(error)}})
        return MODEL_UNAVAILABLE

    async def _ask(  # noqa: PLR0913, PLR0917  # one request's parts
        self,
        version: Deployed,
        user_id: str,
        page_id: str,
        items: Sequence[tuple[str, dict[str, Any]]],
        features: Features,
        ends: float,
    ) -> Scores:
        model = self.deployed.name
        with _COLUMNS.time():
            made = version.columns.from_request(features.user, features.context, user_id, page_id, items)
            columns = {name: made[name] for name in version.inputs}
        with _PREDICT.time():
            left = ends - asyncio.get_running_loop().time()
            answer = await self._client.predict(model, version.version, columns, timeout_s=max(left, 0.0))
        scores = answer.outputs.get(_SCORE)
        if scores is None or scores.shape != (len(items),) or not np.isfinite(scores).all():
            raise AwayError(f"{model} version {answer.version}: no finite score for each of {len(items)} items")
        return Scores(model, answer.version, scores.tolist())
