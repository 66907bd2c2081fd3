"""The model server as a process of its own: swaps under traffic, broken artifacts, kills."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from headrace_core.serving.client import (
    Aspired,
    AwayError,
    ModelServerClient,
    NotLoadedError,
    RefusedError,
    VersionStatus,
)
from headrace_core.serving.messages import VersionState

from load_tests.serving.process import ModelServerProcess
from load_tests.serving.saved_models import Weights, expected, export, inputs
from tests.integration.serving.world import eventually, unique

AVAILABLE, END = VersionState.VERSION_STATE_AVAILABLE, VersionState.VERSION_STATE_END


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ModelServerProcess]:
    process = ModelServerProcess(tmp_path)
    try:
        yield process
    finally:
        process.stop()


class Model:
    """Versions of one model on one server."""

    def __init__(self, client: ModelServerClient, root: Path) -> None:
        self.client, self.root, self.name = client, root, unique("m")
        self.weights: dict[int, Weights] = {}

    def export(self, version: int, weights: Weights) -> Path:
        self.weights[version] = weights
        return export(self.root, self.name, version, weights)

    async def reload(self, *versions: int, labels: dict[str, int] | None = None) -> None:
        await self.client.reload({self.name: Aspired(str(self.root / self.name), versions, labels or {})})

    async def await_state(self, version: int, state: VersionState) -> VersionStatus:
        async def reached() -> VersionStatus | None:
            found = (await self.client.status(self.name)).get(version)
            return found if found is not None and found.state == state else None

        status = await eventually(reached, f"version {version} in the state {VersionState.Name(state)}")
        assert status is not None
        return status

    async def assert_serves(self, version: int, asked: int | None = None) -> None:
        columns = inputs(*range(20), rate=0.3)
        answer = await self.client.predict(self.name, asked, columns, timeout_s=20)
        assert answer.version == version
        np.testing.assert_allclose(answer.outputs["score"], expected(self.weights[version], columns), rtol=1e-6)


@asynccontextmanager
async def a_model(server: ModelServerProcess, root: Path) -> AsyncIterator[Model]:
    async with ModelServerClient(server.address) as client:
        yield Model(client, root)


@pytest.fixture
async def model(model_server: ModelServerProcess, tmp_path: Path) -> AsyncIterator[Model]:
    async with a_model(model_server, tmp_path) as made:
        yield made


def some_weights(version: int) -> Weights:
    return Weights(bias=version / 10, rows={k: (k * version) % 7 - 3.0 for k in range(10 + version * 50)}, rate=version)


async def test_every_answer_is_from_the_version_that_it_names_while_versions_come_and_go(model: Model) -> None:
    for version in range(1, 9):
        model.export(version, some_weights(version))
    await model.reload(1)
    await model.await_state(1, AVAILABLE)
    done, answered = asyncio.Event(), set()

    async def ask(n: int) -> None:
        columns = inputs(*range(n, n + 30), rate=0.1 * n)
        while not done.is_set():
            answer = await model.client.predict(model.name, None, columns, timeout_s=20)
            wanted = expected(model.weights[answer.version], columns)
            np.testing.assert_allclose(answer.outputs["score"], wanted, rtol=1e-5)
            answered.add(answer.version)

    async def swap() -> None:
        for version in range(2, 9):
            await model.reload(version)
            await model.await_state(version, AVAILABLE)
            await model.await_state(version - 1, END)
        done.set()

    async with asyncio.TaskGroup() as group:
        for n in range(4):
            group.create_task(ask(n))
        group.create_task(swap())

    assert answered >= {2, 8}


async def test_version_that_was_unloaded_is_not_found(model: Model) -> None:
    for version in (1, 2):
        model.export(version, some_weights(version))
    await model.reload(1, 2)
    await model.await_state(2, AVAILABLE)
    await model.assert_serves(1, asked=1)

    await model.reload(2)
    await model.await_state(1, END)

    with pytest.raises(NotLoadedError, match=f"{model.name}: version 1 is not available"):
        await model.client.predict(model.name, 1, inputs(1), timeout_s=20)
    await model.assert_serves(2)


async def test_version_comes_back_after_it_was_unloaded(model: Model) -> None:
    for version in (1, 2):
        model.export(version, some_weights(version))
    await model.reload(1)
    await model.await_state(1, AVAILABLE)
    await model.reload(2)
    await model.await_state(1, END)

    await model.reload(1)
    await model.await_state(2, END)

    await model.assert_serves(1)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("cut off", "variables can't be restored"),
        ("flipped", "variables can't be restored"),
        ("no variables", "variables can't be restored"),
        ("no graph", "holds no saved_model.pb"),
        ("broken graph", "saved_model.pb can't be read"),
        ("missing", "holds no saved_model.pb"),
    ],
)
async def test_broken_artifact_is_refused_with_its_reason_and_the_old_one_serves_on(
    model: Model, fault: str, says: str
) -> None:
    model.export(1, some_weights(1))
    await model.reload(1)
    await model.await_state(1, AVAILABLE)
    folder = model.export(2, some_weights(2))
    data = folder / "variables" / "variables.data-00000-of-00001"
    match fault:
        case "cut off":
            data.write_bytes(data.read_bytes()[:-100])
        case "flipped":
            data.write_bytes(bytes(b ^ 0xFF for b in data.read_bytes()))
        case "no variables":
            shutil.rmtree(folder / "variables")
        case "no graph":
            (folder / "saved_model.pb").unlink()
        case "broken graph":
            (folder / "saved_model.pb").write_bytes(b"\xff\xff\xff")
        case "missing":
            shutil.rmtree(folder)

    await model.reload(2)
    status = await model.await_state(2, END)

    assert says in status.error
    await model.assert_serves(1)


async def test_artifact_that_was_repaired_is_loaded_when_it_is_asked_for_again(model: Model) -> None:
    folder = model.export(1, some_weights(1))
    kept = folder.rename(folder.with_name("kept"))
    await model.reload(1)
    await model.await_state(1, END)

    kept.rename(folder)
    await model.reload(1)
    await model.await_state(1, AVAILABLE)

    await model.assert_serves(1)


async def test_graph_that_has_other_inputs_is_loaded_beside(model: Model) -> None:
    model.export(1, some_weights(1))
    export(model.root, model.name, 2, some_weights(2), dtypes={"rate": "float64"})
    await model.reload(1, 2)
    await model.await_state(2, AVAILABLE)

    with pytest.raises(RefusedError, match="rate: is float32, float64 is expected"):
        await model.client.predict(model.name, 2, inputs(1), timeout_s=20)
    columns = inputs(1, 2) | {"rate": np.array([0.5, 0.5], np.float64)}
    answer = await model.client.predict(model.name, 2, columns, timeout_s=20)

    np.testing.assert_allclose(answer.outputs["score"], expected(some_weights(2), columns), rtol=1e-6)
    await model.assert_serves(1, asked=1)


async def test_same_version_under_two_names_answers_under_both_until_each_is_gone(model: Model) -> None:
    model.export(1, some_weights(1))
    path, candidate = str(model.root / model.name), f"{model.name}.candidate"
    await model.client.reload({model.name: Aspired(path, (1,)), candidate: Aspired(path, (1,))})
    await model.await_state(1, AVAILABLE)
    await eventually(lambda: model.client.status(candidate), "the candidate")

    await model.reload(1)

    async def gone() -> bool:
        return not await model.client.status(candidate)

    await eventually(gone, "the end of the candidate")
    await model.assert_serves(1)


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ({"a": Aspired("/nowhere", ())}, "a: names no version"),
        ({"a": Aspired("", (1,))}, "without a name or a base_path"),
        ({"a": Aspired("/nowhere", (1,), {"stable": 2})}, "labels of versions that are not served"),
    ],
)
async def test_configuration_that_can_not_be_is_refused(model: Model, models: dict[str, Aspired], says: str) -> None:
    model.export(1, some_weights(1))
    await model.reload(1)
    await model.await_state(1, AVAILABLE)

    with pytest.raises(RefusedError, match=says):
        await model.client.reload(models)

    await model.assert_serves(1)


async def test_label_moves_only_to_what_is_available(model: Model) -> None:
    for version in (1, 2):
        model.export(version, some_weights(version))
    await model.reload(1)
    await model.await_state(1, AVAILABLE)
    await model.reload(1, labels={"stable": 1})

    with pytest.raises(RefusedError, match="the label stable can't move to version 2 before it is available"):
        await model.reload(1, 2, labels={"stable": 2})


async def test_killed_under_traffic_it_comes_back_and_serves_what_it_served(
    own_server: ModelServerProcess, tmp_path: Path
) -> None:
    own_server.start()
    async with a_model(own_server, tmp_path) as model:
        for version in (1, 2, 3, 4):
            model.export(version, some_weights(version))
        await model.reload(1, 2, 4)
        await model.await_state(4, AVAILABLE)
        done, failed, answered = asyncio.Event(), 0, 0

        async def ask() -> None:
            nonlocal failed, answered
            columns = inputs(*range(20))
            while not done.is_set():
                try:
                    answer = await model.client.predict(model.name, 1, columns, timeout_s=5)
                except AwayError:
                    failed += 1
                    await asyncio.sleep(0.01)
                else:
                    assert answer.version == 1
                    np.testing.assert_allclose(answer.outputs["score"], expected(model.weights[1], columns), rtol=1e-5)
                    answered += 1

        async def some_more(than: int) -> None:
            async def more() -> bool:
                return answered > than

            await eventually(more, f"more than {than} answers")

        async def kill() -> None:
            await some_more(10)
            await asyncio.to_thread(own_server.kill)
            shutil.rmtree(tmp_path / model.name / "4")  # what can't be loaded any more stops no other
            before = answered
            own_server.spawn()  # as the process manager does
            await asyncio.to_thread(own_server.wait_ready)
            await some_more(before + 10)
            done.set()

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(ask())
            group.create_task(kill())

        assert failed
        await model.assert_serves(1, asked=1)
        await model.assert_serves(2)
        assert "holds no saved_model.pb" in (await model.client.status(model.name))[4].error
        with pytest.raises(NotLoadedError):
            await model.client.predict(model.name, 3, inputs(1), timeout_s=5)
        await asyncio.to_thread(own_server.stop)
        assert own_server.wait(5) == 0
