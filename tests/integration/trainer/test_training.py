"""Training on the real stores: base, increments, and kill -9 in between."""

import asyncio
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from headrace_core.control.client import ControlClient, ModelVersion, Parent
from headrace_core.init.restored import raise_after_restore
from headrace_trainer.store.states import State, load

from tests.conftest import Stores
from tests.integration.trainer.processes import Trainer, control_plane, train_base
from tests.integration.trainer.samples import SampleWriter

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


@dataclass
class Platform:
    """Stores with samples, a control plane, and a validated base."""

    environment: dict[str, str]
    writer: SampleWriter
    folder: Path
    base: ModelVersion

    def trainer(self, name: str) -> Trainer:
        return Trainer(self.environment, self.folder, self.folder / name)

    def control(self) -> ControlClient:
        return ControlClient(self.environment["HEADRACE_CONTROL"], "test")

    async def newest(self) -> ModelVersion | None:
        async with self.control() as control:
            return next(iter(await control.versions("ctr")), None)

    def checkpoint(self, name: str) -> State:
        with (self.folder / name / "ctr" / f"base-{self.base.version}" / "checkpoint.npz").open("rb") as file:
            return load(file)


@pytest.fixture(scope="module")
def platform(own_stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("training")
    stores = own_stores.environment() | {"HEADRACE_MODELS": (folder / "models").as_uri()}
    stores |= {"HEADRACE_TRAIN_EVERY_MS": "1000", "HEADRACE_TRAIN_CHECKPOINT_MS": "1500"}
    writer = SampleWriter(own_stores.postgres_dsn, own_stores.kafka_address)
    asyncio.run(writer.write(600))
    with control_plane(stores, folder) as url:
        environment = stores | {"HEADRACE_CONTROL": url}
        made = train_base(environment)
        yield Platform(environment, writer, folder, asyncio.run(validated(url, made)))


async def validated(url: str, made: dict[str, Any]) -> ModelVersion:
    async with ControlClient(url, "test") as control:
        return await control.move(made["model"], made["version"], "VALIDATED", "told by a test")


async def test_base_tells_what_it_learned_and_carries_its_state(platform: Platform) -> None:
    base = platform.base

    assert base.model == "ctr_base"
    samples = base.manifest["samples"]
    assert {int(s): seq for s, (_, seq) in samples["seqs"].items()} == platform.writer.seqs
    assert 600 * 5 * 0.9 < samples["count"] < 600 * 5
    assert base.metrics["count"] == 600 * 5 - samples["count"]
    assert 0 < (base.metrics["logloss"] or 0) < 1


async def test_first_increment_equals_its_base_and_later_ones_learn(platform: Platform) -> None:
    trainer = platform.trainer("increments")
    trainer.start()
    try:
        await trainer.until(lambda: has_version(platform, 1), "first version")
        async with platform.control() as control:
            first = await control.version("ctr", 1)
        await platform.writer.write(200)
        await trainer.until(lambda: has_version(platform, first.version + 1), "second version")
        await trainer.until(lambda: reached(platform, platform.writer.seqs), "version with all that was written")
    finally:
        trainer.stop()

    assert first.manifest["weights"] == platform.base.manifest["weights"]
    assert first.parent == Parent("ctr_base", platform.base.version)
    last = await platform.newest()
    assert last is not None
    assert last.manifest["weights"] != first.manifest["weights"]
    assert (last.metrics["count"] or 0) > 0
    learned = last.manifest["samples"]["count"] - first.manifest["samples"]["count"]
    assert 200 * 5 * 0.85 < learned < 200 * 5


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=pytest.mark.long)])
async def test_weights_after_kills_are_those_of_an_unbroken_run(platform: Platform, kills: int) -> None:
    name, rng = f"killed-{kills}", random.Random(kills)
    trainer = platform.trainer(name)
    for _ in range(kills):
        trainer.start()
        await platform.writer.write(400)
        much = rng.randrange(1, 1_200)
        await trainer.until(partial(learned, trainer, much), f"{much} samples")
        trainer.kill()
    trainer.start()
    await platform.writer.write(20)
    await trainer.until(lambda: has_learned_all(platform, trainer), "everything learned")
    trainer.stop()
    killed = platform.checkpoint(name)
    assert "learned again what was planned" in trainer.log(), "no kill came between a plan and its checkpoint"

    unbroken = platform.folder / f"unbroken-{kills}"
    target = unbroken / "ctr" / f"base-{platform.base.version}"
    target.mkdir(parents=True)
    for plan in (platform.folder / name / "ctr" / target.name).glob("plan-*.log"):
        shutil.copy(plan, target)
    other = platform.trainer(unbroken.name)
    other.start()
    await other.until(lambda: has_learned_all(platform, other), "everything learned")
    other.stop()

    whole = platform.checkpoint(unbroken.name)
    assert killed.header["learned"]["seqs"] == whole.header["learned"]["seqs"]
    assert killed.header["batch"] == whole.header["batch"]
    assert killed.arrays.keys() == whole.arrays.keys()
    for array, bits in whole.arrays.items():
        assert bits.tobytes() == killed.arrays[array].tobytes(), array
    assert np.isfinite(whole.arrays["ids/embedding"]).all()


async def test_after_a_restore_the_line_begins_again_and_no_version_is_overwritten(platform: Platform) -> None:
    trainer, writer = platform.trainer("restored"), platform.writer
    trainer.start()
    try:
        await writer.write(60)
        await trainer.until(lambda: reached(platform, writer.seqs), "version of what will be void")
    finally:
        trainer.stop()
    artifacts = written(platform)
    with psycopg.connect(writer.postgres) as connection:  # back to when the base was made
        for source, (_, seq) in platform.base.manifest["samples"]["seqs"].items():
            writer.seqs[int(source)] = seq
            connection.execute(
                "UPDATE runtime.partitions SET next_seq = %s WHERE partition = %s", (seq + 1, int(source))
            )
        connection.execute("DELETE FROM control.version_metrics WHERE model = 'ctr'")
        connection.execute("DELETE FROM control.version_history WHERE model = 'ctr'")
        connection.execute("DELETE FROM control.versions WHERE model = 'ctr'")
        connection.execute("UPDATE control.models SET reserved = 0 WHERE model = 'ctr'")
    writer.incarnation = raise_after_restore(writer.postgres, "a test").incarnation

    trainer.start()
    try:
        await writer.write(40)
        await trainer.until(lambda: reached(platform, writer.seqs), "version of the time after the restore")
    finally:
        trainer.stop()

    last = await platform.newest()
    assert last is not None
    assert "begins again with the base" in trainer.log()
    assert 0 < last.manifest["samples"]["count"] - platform.base.manifest["samples"]["count"] <= 40 * 5
    assert last.version > max(artifacts)
    assert {version: written(platform)[version] for version in artifacts} == artifacts


def written(platform: Platform) -> dict[int, int]:
    """When each version of ctr was written."""
    folders = (platform.folder / "models" / "ctr").iterdir()
    return {int(f.name): (f / "saved_model.pb").stat().st_mtime_ns for f in folders if f.name.isdigit()}


@pytest.mark.long
async def test_newer_validated_base_is_switched_to_and_nothing_is_learned_twice(platform: Platform) -> None:
    """The last test here: the others stand on the first base."""
    trainer = platform.trainer("switching")
    trainer.start()
    try:
        await platform.writer.write(50)
        await trainer.until(lambda: reached(platform, platform.writer.seqs), "version of the first base")
        made = await asyncio.to_thread(train_base, platform.environment)
        base = await validated(platform.environment["HEADRACE_CONTROL"], made)
        await platform.writer.write(50)
        await trainer.until(lambda: stands_on(platform, base), "version of the newer base")
        await trainer.until(lambda: reached(platform, platform.writer.seqs), "version with all that was written")
    finally:
        trainer.stop()

    last = await platform.newest()
    assert last is not None
    learned_after = last.manifest["samples"]["count"] - base.manifest["samples"]["count"]
    assert 0 < learned_after <= 50 * 5


async def stands_on(platform: Platform, base: ModelVersion) -> bool:
    async with platform.control() as control:
        return any(v.parent == Parent(base.model, base.version) for v in await control.versions("ctr"))


async def has_version(platform: Platform, number: int) -> bool:
    newest = await platform.newest()
    return newest is not None and newest.version >= number


async def reached(platform: Platform, seqs: dict[int, int]) -> bool:
    newest = await platform.newest()
    return newest is not None and all(
        newest.manifest["samples"]["seqs"].get(str(s), [0, 0]) >= [platform.writer.incarnation, q]
        for s, q in seqs.items()
    )


async def learned(trainer: Trainer, samples: int) -> bool:
    return trainer.learned() >= samples


async def has_learned_all(platform: Platform, trainer: Trainer) -> bool:
    return trainer.seqs() == platform.writer.seqs
