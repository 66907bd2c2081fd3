"""What is loaded, in process: a version that a request holds keeps its weights until it is given back."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from headrace_core.serving.messages import ModelSpec, VersionNumber, VersionState
from headrace_core.serving.tensors import to_array, to_tensor
from headrace_model_server.artifact import graph_of
from headrace_model_server.aspired import AspiredModel
from headrace_model_server.errors import NotServedError
from headrace_model_server.library import Library
from headrace_model_server.slots import SlotPool
from headrace_model_validator.bundle import BundleError, read_variables

from load_tests.serving.saved_models import Weights, expected, export, inputs

WEIGHTS = {n: Weights(bias=n / 2, rows={5: float(n), 9: -float(n)}, rate=n) for n in range(1, 5)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for version, weights in WEIGHTS.items():
        export(root, "ctr", version, weights)
    return root


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    made = Library(tmp_path, drain_seconds=60)
    made.start()
    yield made
    made.stop()


def aspire(library: Library, models: Path, *versions: int) -> None:
    library.aspire({"ctr": AspiredModel(str(models / "ctr"), versions)})


def spec(version: int) -> ModelSpec:
    return ModelSpec(name="ctr", version=VersionNumber(value=version))


def test_request_that_holds_a_version_gets_its_weights_after_it_was_told_to_go(library: Library, models: Path) -> None:
    aspire(library, models, 1)
    assert library.wait_settled(60)
    columns = {name: to_tensor(column) for name, column in inputs(5, 9, rate=1.0).items()}

    with library.held(spec(1)) as (version, slot):
        aspire(library, models, 2)
        unloading = threading.Event()

        def look() -> None:
            while library.versions(spec(1))[0].state != VersionState.VERSION_STATE_UNLOADING:
                pass
            unloading.set()

        threading.Thread(target=look, daemon=True).start()
        assert unloading.wait(60)
        aspire(library, models, 2, 3)  # wants a slot, and this one is not free
        with pytest.raises(NotServedError), library.held(spec(1)):
            pass  # nobody new gets it
        scores = to_array(slot.run(columns, "")["score"])

    np.testing.assert_allclose(scores, expected(WEIGHTS[version], inputs(5, 9, rate=1.0)), rtol=1e-6)
    assert library.wait_settled(60)
    assert [(v.number, v.state) for v in library.versions(ModelSpec(name="ctr"))] == [
        (3, VersionState.VERSION_STATE_AVAILABLE),
        (2, VersionState.VERSION_STATE_AVAILABLE),
        (1, VersionState.VERSION_STATE_END),
    ]


def test_next_version_takes_the_idle_slot_of_the_same_graph(models: Path) -> None:
    pool = SlotPool()
    first, second = pool.load(models / "ctr" / "1"), pool.load(models / "ctr" / "2")
    pool.give_back(first)

    third = pool.load(models / "ctr" / "3")

    assert third is first
    assert third.architecture is second.architecture


def test_slot_whose_variables_could_not_be_restored_serves_no_other_version(models: Path, tmp_path: Path) -> None:
    pool = SlotPool()
    first, second = pool.load(models / "ctr" / "1"), pool.load(models / "ctr" / "2")
    pool.give_back(first)
    broken = export(tmp_path, "ctr", 1, WEIGHTS[1])
    (broken / "saved_model.pb").write_bytes((models / "ctr" / "1" / "saved_model.pb").read_bytes())
    data = broken / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-20])

    with pytest.raises(Exception, match="can't be restored"):
        pool.load(broken)

    assert pool.load(models / "ctr" / "3") is not first
    assert second.architecture.fingerprint == graph_of(models / "ctr" / "3")[1]


def test_variables_are_read_as_tensorflow_reads_them(models: Path) -> None:
    import tensorflow as tf  # noqa: PLC0415  # the others need it as well, after what they export

    folder = models / "ctr" / "3" / "variables"
    reader = tf.train.load_checkpoint(str(folder / "variables"))
    index = (folder / "variables.index").read_bytes()
    data = (folder / "variables.data-00000-of-00001").read_bytes()

    found = read_variables(index, {0: data})

    names = [n for n, dtype in reader.get_variable_to_dtype_map().items() if dtype != tf.string]
    assert sorted(found) == sorted(names)
    for name in names:
        np.testing.assert_array_equal(found[name], reader.get_tensor(name))
        assert found[name].dtype == reader.get_tensor(name).dtype
    for cut in range(len(index)):
        with pytest.raises(BundleError):
            read_variables(index[:cut], {0: data})


def test_version_that_is_not_wanted_any_more_is_not_taken_for_kept(tmp_path: Path, models: Path) -> None:
    library = Library(tmp_path, drain_seconds=60)  # loads nothing yet: what is wanted is still on its way

    aspire(library, models, 1)
    wanted = library.versions(spec(1))[0].state
    library.aspire({})
    let_go = library.versions(spec(1))[0].state
    aspire(library, models, 1)

    assert (wanted, let_go) == (VersionState.VERSION_STATE_START, VersionState.VERSION_STATE_UNLOADING)
    assert library.versions(spec(1))[0].state == VersionState.VERSION_STATE_START
