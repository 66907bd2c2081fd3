"""A model of a test's own: its definition, versions, samples, and who works on them."""

import asyncio
import datetime as dt
import json
import random
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
import numpy as np
from headrace_core.control.client import ControlClient, ModelVersion, Parent
from headrace_core.definitions.models import Model, load_model
from headrace_core.learning.inputs import hash_id, held_out
from headrace_core.learning.progressive import PROGRESSIVE, ProgressiveScores
from headrace_core.serving.client import ModelServerClient, Scored
from headrace_model_validator.job import Job
from headrace_model_validator.settings import ModelValidatorSettings
from headrace_model_validator.workers import DEPLOY, VALIDATE, Workers, opened

from load_tests.serving.saved_models import Weights, export, inputs
from tests.conftest import Stores

ROOT: Final = Path(__file__).resolve().parents[3]
DEADLINE_S: Final = 60.0
T = TypeVar("T")

_DEFINITION: Final = """
model: {name}
description: Of a test.
label: click
inputs:
  item_id: {{id: item_id}}
  recent: {{ids: "user.user_last_5_minutes[].item_id", length: 3, table: item_id}}
  rate: {{number: item.click_rate.rate, default: 0.0}}
architecture: {{kind: linear}}
training: {{held_out: 20}}
validation:
  min_samples: 200
  logloss: {{max: 0.69}}
  auc: {{min: 0.5}}
  calibration: {{min: 0.3, max: 3.0}}
  slices: [page_id, user.city]
  confidence: 0.95
  logloss_increase: {{max: 0.02}}
  score_tolerance: 0.00001
"""


def unique(prefix: str) -> str:
    return f"{prefix}{uuid.uuid4().hex[:12]}"


def item(number: int) -> int:
    """The id of item `i<number>` in a column."""
    return hash_id("item_id", f"i{number}")


def a_definition(folder: Path) -> Model:
    """Definitions as shipped, with a model of the test's own alone."""
    shutil.copytree(ROOT / "definitions", folder)
    for file in (folder / "models").glob("*.yaml"):
        file.unlink()
    name = unique("m")
    file = folder / "models" / f"{name}.yaml"
    file.write_text(_DEFINITION.format(name=name), encoding="utf-8")
    return load_model(file)


async def eventually(condition: Callable[[], Awaitable[T]], what: str, deadline_s: float = DEADLINE_S) -> T:
    """What the condition gives once it is truthy."""
    end = time.monotonic() + deadline_s
    while not (value := await condition()):
        assert time.monotonic() < end, f"{what} did not come true within {deadline_s} s"
        await asyncio.sleep(0.05)
    return value


@dataclass
class World:
    """Everything around one model.

    Attributes:
        model: its definition.
        settings: of validator and deployer, to be changed before `opened`.
    """

    stores: Stores
    control_url: str
    model_server: str
    folder: Path
    model: Model

    def __post_init__(self) -> None:
        self.models = self.folder / "models"
        self.settings: dict[str, Any] = {
            "control": self.control_url,
            "models": self.models.as_uri(),
            "model": self.model.name,
            "model_server": self.model_server,
            "postgres": self.stores.postgres_dsn,
            "definitions": self.folder / "definitions",
            "deploy_grace_ms": 0,
            "validate_requests": 500,
            "validate_latency_floor_ms": 5_000,
        }
        self.control: ControlClient
        self.workers: Workers
        self.client: ModelServerClient

    def environment(self) -> dict[str, str]:
        """For a service of its own."""
        return self.stores.environment() | {f"HEADRACE_{k.upper()}": str(v) for k, v in self.settings.items()}

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["World"]:
        async with AsyncExitStack() as stack:
            self.control = await stack.enter_async_context(ControlClient(self.control_url, "test"))
            self.workers = await stack.enter_async_context(opened(ModelValidatorSettings(**self.settings), "test"))
            self.client = await stack.enter_async_context(ModelServerClient(self.model_server))
            yield self
            await self.workers.finish()

    async def generate(
        self, weights: Weights, name: str | None = None, progressive: ProgressiveScores | None = None, **told: Any
    ) -> int:
        """A version as the trainer makes it."""
        name = name or self.model.name
        version = await self.control.reserve_version(name)
        if progressive is not None:
            told["manifest"] = told.get("manifest", {}) | {"progressive": len(progressive)}
        folder = export(self.models, name, version, weights, **told)
        if progressive is not None:
            (folder / PROGRESSIVE).write_bytes(progressive.to_bytes())
        await self.register(folder)
        return version

    async def register(self, folder: Path) -> ModelVersion:
        manifest = json.loads((folder / "assets.extra" / "manifest.json").read_text(encoding="utf-8"))
        kept = {k: v for k, v in manifest.items() if k != "golden"}
        name, version = folder.parent.name, int(folder.name)
        parent = Parent(**manifest["parent"]) if manifest["parent"] else None
        return await self.control.register(name, version, folder.as_uri(), parent=parent, manifest=kept, metrics={})

    async def validate(self, version: int, name: str | None = None) -> ModelVersion:
        name = name or self.model.name
        await self.workers.work(VALIDATE, Job(name, version))
        return await self.control.version(name, version)

    async def deploy(self, version: int) -> ModelVersion:
        await self.workers.work(DEPLOY, Job(self.model.name, version))
        return await self.control.version(self.model.name, version)

    async def serve(self, weights: Weights, **told: Any) -> int:
        """A version that is validated and deployed."""
        version = await self.generate(weights, **told)
        assert (await self.validate(version)).stage == "VALIDATED"
        assert (await self.deploy(version)).stage == "DEPLOYED"
        return version

    async def loaded(self, name: str | None = None) -> list[int]:
        """Versions that the server has available."""
        status = await self.client.status(name or self.model.name)
        return sorted(v for v, s in status.items() if s.state == 30)

    async def score(self, version: int | None, *items: int) -> Scored:
        return await self.client.predict(self.model.name, version, inputs(*items), timeout_s=20)


def why(version: ModelVersion) -> str:
    """Why it is in its stage."""
    return str(version.history[-1]["why"])


@dataclass(frozen=True)
class Click:
    """How likely an item is clicked, by the user's city."""

    anywhere: float
    elsewhere: Mapping[str, float]

    def of(self, city: str) -> float:
        return self.elsewhere.get(city, self.anywhere)


@dataclass(frozen=True)
class Served:
    """What answered.

    Attributes:
        model: its name; empty for popularity.
        scores: by item.
    """

    model: str = ""
    scores: Mapping[int, float] = field(default_factory=dict)


class Samples:
    """Requests of a day of their own, far in the future so that they are the newest of all."""

    def __init__(self, postgres: str) -> None:
        self._postgres = postgres
        self._day = dt.date(2100, 1, 1) + dt.timedelta(days=random.randrange(30_000))
        self._table = f"samples.requests_test_{self._day:%Y%m%d}"

    @property
    def start_ms(self) -> int:
        midnight = dt.datetime.combine(self._day, dt.time(), dt.UTC)
        return int(midnight.timestamp() * 1_000)

    async def write(  # the world in which a test's requests were made
        self,
        requests: int,
        clicks: Mapping[int, Click],
        cities: Sequence[str],
        *,
        served: Sequence[Served] = (Served(),),
        held: bool = True,
        first: int = 0,
        seed: int = 3,
    ) -> ProgressiveScores:
        """Requests that showed every item once, a second apart; each label by the item's own probability.

        Args:
            requests: how many.
            clicks: by item.
            cities: of the users, in turn.
            served: what answered, in turn.
            held: whether the requests are held out, or else are learned.
            first: second of the first request.
            seed: of labels and ids.

        Returns:
            What a trainer would keep of these samples, if it gave each the score 0.5 before it learned it.
        """
        kept: list[tuple[bytes, bytes, int, float]] = []
        rng, ids = random.Random(seed), random.Random(seed)  # how many ids are drawn depends on the time of day
        rows = []
        for n in range(requests):
            time_ms, city = self.start_ms + (first + n) * 1_000, cities[n % len(cities)]
            answered, request_id = served[n % len(served)], an_id(time_ms, ids, held=held)
            items = [f"i{k}" for k in clicks]
            labels = [int(rng.random() < click.of(city)) for click in clicks.values()]
            log = {"user": {"city": city}, "context": {}, "items": {i: {} for i in items}}
            kept += [(str(request_id).encode(), i.encode(), time_ms, 0.5) for i in items]
            scores = [answered.scores.get(k, 0.5) for k in clicks]
            rows.append((
                self._day, request_id, f"u{n % 20}", "100", 0, answered.model, int(bool(answered.model)), 1, items, labels,
                [1] * len(items), [time_ms] * len(items), list(range(len(items))), scores, [1.0] * len(items),
                [0] * len(items), [time_ms] * len(items), 0, json.dumps(log).encode(),
            ))  # fmt: skip
        connection = await asyncpg.connect(self._postgres)
        try:
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table} PARTITION OF samples.requests "
                f"FOR VALUES FROM ('{self._day}') TO ('{self._day + dt.timedelta(days=1)}')"
            )
            marks = ", ".join(f"${n}" for n in range(1, 20))
            await connection.executemany(f"INSERT INTO samples.requests VALUES ({marks})", rows)
        finally:
            await connection.close()
        ids_, shown, times, told = zip(*kept, strict=True)
        return ProgressiveScores(np.array(ids_), np.array(shown), np.array(times, np.int64), np.array(told, np.float32))

    async def drop(self) -> None:
        connection = await asyncpg.connect(self._postgres)
        try:
            await connection.execute(f"DROP TABLE IF EXISTS {self._table}")
        finally:
            await connection.close()


def an_id(time_ms: int, rng: random.Random, *, held: bool) -> uuid.UUID:
    """A UUIDv7 of that time that is held out, or that is not."""
    while True:
        made = uuid.UUID(int=time_ms << 80 | 7 << 76 | rng.getrandbits(12) << 64 | 2 << 62 | rng.getrandbits(62))
        if held_out(str(made), 20) == held:
            return made
