"""TensorFlow Serving's protocol: our messages are its messages, and the model server answers its own stubs."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from headrace_core.serving import messages
from headrace_core.serving.tensors import to_array, to_tensor

from load_tests.serving.process import ModelServerProcess
from load_tests.serving.saved_models import Weights, expected, export, inputs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what TensorFlow itself imports
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2, types_pb2
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_management_pb2,
        model_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )
    from tensorflow_serving.config import model_server_config_pb2

#: Ours and theirs; what these messages hold is compared with them.
PAIRS: list[tuple[type[Message], type[Message]]] = [
    (messages.PredictRequest, predict_pb2.PredictRequest),
    (messages.PredictResponse, predict_pb2.PredictResponse),
    (messages.GetModelStatusRequest, get_model_status_pb2.GetModelStatusRequest),
    (messages.GetModelStatusResponse, get_model_status_pb2.GetModelStatusResponse),
    (messages.GetModelMetadataRequest, get_model_metadata_pb2.GetModelMetadataRequest),
    (messages.GetModelMetadataResponse, get_model_metadata_pb2.GetModelMetadataResponse),
    (messages.SignatureMap, get_model_metadata_pb2.SignatureDefMap),
    (messages.ReloadConfigRequest, model_management_pb2.ReloadConfigRequest),
    (messages.ReloadConfigResponse, model_management_pb2.ReloadConfigResponse),
]


def faults(ours: Any, theirs: Any, seen: set[str]) -> Iterator[str]:
    """Where a field of ours has not the number, type, name and repetition of theirs."""
    if ours.full_name in seen:
        return
    seen.add(ours.full_name)
    for field in ours.fields:
        other = theirs.fields_by_number.get(field.number)
        told = f"{field.full_name} = {field.number}"
        if other is None:
            yield f"{told}: not in {theirs.full_name}"
        elif (field.name, field.is_repeated) != (other.name, other.is_repeated):
            yield f"{told}: theirs is {other.name}"
        elif field.type != other.type and {field.type, other.type} != {
            FieldDescriptor.TYPE_INT32,
            FieldDescriptor.TYPE_ENUM,
        }:
            yield f"{told}: of type {field.type}, theirs of {other.type}"
        elif field.containing_oneof and not other.containing_oneof:
            yield f"{told}: is one of several"
        elif field.message_type is not None:
            yield from faults(field.message_type, other.message_type, seen)
        elif field.enum_type is not None:
            known = {v.number for v in other.enum_type.values}
            yield from (
                f"{field.full_name}: {v.name} is not in theirs" for v in field.enum_type.values if v.number not in known
            )


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda t: t.DESCRIPTOR.name)
def test_every_field_of_ours_is_theirs(ours: type[Message], theirs: type[Message]) -> None:
    assert list(faults(ours.DESCRIPTOR, theirs.DESCRIPTOR, set())) == []


def test_states_and_types_have_their_numbers() -> None:
    states = get_model_status_pb2.ModelVersionStatus.State
    ours = {name.removeprefix("VERSION_STATE_"): number for name, number in messages.VersionState.items() if number}
    assert ours == {name: number for name, number in states.items() if number}
    for name, number in messages.DataType.items():
        if number:
            assert types_pb2.DataType.Value(f"DT_{name.removeprefix('DATA_TYPE_')}") == number


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_bytes_of_an_array_are_theirs(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape).astype(dtype)

    ours = tensor_pb2.TensorProto.FromString(to_tensor(array).SerializeToString())
    theirs = messages.Tensor.FromString(tf.make_tensor_proto(tf.constant(array)).SerializeToString())

    assert np.array_equal(tf.make_ndarray(ours), array)
    if array.size > 1 and dtype != "bool":  # single values and truth values they send as lists
        assert np.array_equal(to_array(theirs), array)
        assert ours == tf.make_tensor_proto(array)


def test_request_is_read_as_theirs() -> None:
    ours = messages.PredictRequest(
        model_spec=messages.ModelSpec(name="ctr", version=messages.VersionNumber(value=7), signature_name="s"),
        output_filter=["score"],
    )
    ours.inputs["x"].CopyFrom(to_tensor(np.array([1, 2], np.int64)))

    theirs = predict_pb2.PredictRequest.FromString(ours.SerializeToString())

    assert (theirs.model_spec.name, theirs.model_spec.version.value, theirs.model_spec.signature_name) == (
        "ctr",
        7,
        "s",
    )
    assert list(tf.make_ndarray(theirs.inputs["x"])) == [1, 2]
    assert messages.PredictRequest.FromString(theirs.SerializeToString()) == ours


WEIGHTS = {1: Weights(bias=-1.0, rows={5: 2.0}, rate=1.0), 2: Weights(bias=1.0, rows={5: -2.0, 9: 3.0})}


class Server:
    """A model server with two versions, and TensorFlow's own stubs for it."""

    def __init__(self, address: str, models: Path) -> None:
        self.models = models
        self._channel = grpc.insecure_channel(address)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self.service = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def reload(self, *versions: int, labels: dict[str, int] | None = None) -> None:
        config = model_server_config_pb2.ModelServerConfig()
        model = config.model_config_list.config.add(name="ctr", base_path=str(self.models / "ctr"))
        model.model_platform = "tensorflow"
        model.model_version_policy.specific.versions.extend(versions)
        for label, version in (labels or {}).items():
            model.version_labels[label] = version
        request = model_management_pb2.ReloadConfigRequest(config=config)
        assert self.service.HandleReloadConfigRequest(request).status.error_code == 0

    def status(self, version: int) -> Any:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec(version))
        return self.service.GetModelStatus(request).model_version_status[0]

    def await_state(self, version: int, state: str) -> None:
        wanted = get_model_status_pb2.ModelVersionStatus.State.Value(state)
        for _ in range(3_000):
            if self.status(version).state == wanted:
                return
        raise AssertionError(f"version {version} never came to {state}")

    def predict(self, model: model_pb2.ModelSpec, **columns: Any) -> Any:
        request = predict_pb2.PredictRequest(model_spec=model)
        for name, column in columns.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(column))
        return self.predictions.Predict(request, timeout=20)


def spec(version: int | None = None, **told: Any) -> model_pb2.ModelSpec:
    made = model_pb2.ModelSpec(name="ctr", **told)
    if version is not None:
        made.version.value = version
    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tfserving")
    process = ModelServerProcess(folder)
    process.spawn()
    try:
        for version, weights in WEIGHTS.items():
            export(folder, "ctr", version, weights)
        process.wait_ready()
        server = Server(process.address, folder)
        server.reload(1, 2)
        for version in WEIGHTS:
            server.await_state(version, "AVAILABLE")
        server.reload(1, 2, labels={"stable": 1, "canary": 2})
        yield server
    finally:
        process.stop()


@pytest.mark.parametrize(
    ("asked", "answers"),
    [
        (spec(1), 1),
        (spec(2), 2),
        (spec(), 2),
        (spec(version_label="stable"), 1),
        (spec(version_label="canary"), 2),
        (spec(1, signature_name="serving_default"), 1),
    ],
    ids=["1", "2", "newest", "stable", "canary", "signature"],
)
def test_their_stub_gets_the_scores_of_the_version_it_names(server: Server, asked: Any, answers: int) -> None:
    columns = inputs(5, 9, 1, rate=0.5)

    answer = server.predict(asked, **columns)

    assert (answer.model_spec.name, answer.model_spec.version.value) == ("ctr", answers)
    scores = tf.make_ndarray(answer.outputs["score"])
    np.testing.assert_allclose(scores, expected(WEIGHTS[answers], columns), rtol=1e-6)


def test_values_sent_as_lists_are_read(server: Server) -> None:
    request = predict_pb2.PredictRequest(model_spec=spec(1))
    for name, column in inputs(5).items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(column.tolist(), dtype=column.dtype, shape=column.shape))
    assert request.inputs["item_id"].int64_val

    answer = server.predictions.Predict(request, timeout=20)

    np.testing.assert_allclose(tf.make_ndarray(answer.outputs["score"]), expected(WEIGHTS[1], inputs(5)), rtol=1e-6)


@pytest.mark.parametrize(
    ("asked", "columns", "code", "says"),
    [
        (spec(3), inputs(5), "NOT_FOUND", "version 3 is not available"),
        (model_pb2.ModelSpec(name="other"), inputs(5), "NOT_FOUND", "'other'"),
        (spec(version_label="old"), inputs(5), "NOT_FOUND", "'old'"),
        (spec(1, signature_name="other"), inputs(5), "INVALID_ARGUMENT", "no signature other"),
        (spec(1), {}, "INVALID_ARGUMENT", "missing are ['item_id', 'rate', 'recent']"),
        (spec(1), inputs(5) | {"more": np.zeros(1)}, "INVALID_ARGUMENT", "unknown are ['more']"),
        (spec(1), inputs(5) | {"rate": np.zeros(1, np.int64)}, "INVALID_ARGUMENT", "rate: is int64, float32"),
        (
            spec(1),
            inputs(5) | {"recent": np.zeros((1, 4), np.int64)},
            "INVALID_ARGUMENT",
            "recent: has the shape [1, 4]",
        ),
        (spec(1), inputs(5) | {"rate": np.zeros((1, 1), np.float32)}, "INVALID_ARGUMENT", "rate: has the shape [1, 1]"),
        (spec(1), inputs(5, 6) | {"rate": np.zeros(3, np.float32)}, "INVALID_ARGUMENT", "shapes"),
    ],
)
def test_what_can_not_be_answered_has_their_code(
    server: Server, asked: Any, columns: Any, code: str, says: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.predict(asked, **columns)

    assert (caught.value.code().name, says in caught.value.details()) == (code, True), caught.value.details()


def test_metadata_tells_the_signature(server: Server) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec(1), metadata_field=["signature_def"])

    answer = server.predictions.GetModelMetadata(request)

    told = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(told)
    signature = told.signature_def["serving_default"]
    assert {name: types_pb2.DataType.Name(info.dtype) for name, info in signature.inputs.items()} == {
        "item_id": "DT_INT64",
        "rate": "DT_FLOAT",
        "recent": "DT_INT64",
    }
    assert list(signature.outputs) == ["score"]


def test_other_methods_are_unimplemented(server: Server) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.predictions.Classify(classification_pb2.ClassificationRequest(), timeout=20)

    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_saved_model_gives_the_same_scores_in_a_plain_session(server: Server) -> None:
    columns = inputs(5, 9, 1, rate=0.5)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(server.models / "ctr" / "2"))
        signature = loaded.signature_def["serving_default"]
        feeds = {signature.inputs[name].name: column for name, column in columns.items()}
        scores = session.run(signature.outputs["score"].name, feeds)

    answer = server.predict(spec(2), **columns)

    assert np.array_equal(tf.make_ndarray(answer.outputs["score"]), scores)
