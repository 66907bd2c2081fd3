"""SavedModels in sessions, loaded as TensorFlow Serving loads them: graph, restored variables, init op.

The graph of an architecture is read once. A slot is a session over it, with variables of its own; restoring other variables into
an idle slot costs milliseconds, where loading a SavedModel anew costs a second of everybody's CPU.
"""

import contextlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from headrace_core.serving.messages import DEFAULT_SIGNATURE, Signature, SignatureMap, Tensor, TensorInfo
from headrace_core.serving.tensors import TensorError, dtype_name, to_array, to_tensor
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, saved_model_pb2

from headrace_model_server.errors import ArtifactError, FailedError, InvalidError

_INIT: Final = "__saved_model_init_op"
_SERVE: Final = "serve"
_PREDICT_METHOD: Final = "tensorflow/serving/predict"


@dataclass(frozen=True, slots=True)
class Expected:
    """An input of a signature.

    Attributes:
        dtype: number of its elements' type.
        shape: -1 where any length will do; None where any shape will.
    """

    dtype: int
    shape: tuple[int, ...] | None

    def fault(self, tensor: Tensor) -> str | None:
        """What is wrong with a tensor; None if nothing."""
        if tensor.dtype != self.dtype:
            return f"is {dtype_name(tensor.dtype)}, {dtype_name(self.dtype)} is expected"
        if self.shape is None:
            return None
        shape = tuple(d.size for d in tensor.tensor_shape.dim)
        if len(shape) != len(self.shape) or any(w not in (-1, n) for n, w in zip(shape, self.shape, strict=True)):
            return f"has the shape {list(shape)}, {[None if n < 0 else n for n in self.shape]} is expected"
        return None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A signature, ready to be called in any slot.

    Attributes:
        inputs: by name, in the order they are fed.
        outputs: names in the order they are fetched.
        options: of the callable.
    """

    inputs: Mapping[str, Expected]
    outputs: tuple[str, ...]
    options: config_pb2.CallableOptions


class Architecture:
    """The graph that versions share, and its signatures.

    Args:
        graph: content of saved_model.pb.
        fingerprint: names it.

    Raises:
        ArtifactError: it can't be read.
    """

    def __init__(self, graph: bytes, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.meta = _served_graph(graph)
        self.graph = tf.Graph()
        try:
            with self.graph.as_default():
                tf.compat.v1.train.import_meta_graph(self.meta)
        except (ValueError, KeyError, TypeError, tf.errors.OpError) as error:
            raise ArtifactError(f"the graph can't be read: {_first_line(error)}") from error
        self.signatures = {
            name: _prepared(definition)
            for name, definition in self.meta.signature_def.items()
            if definition.method_name == _PREDICT_METHOD
        }
        if DEFAULT_SIGNATURE not in self.signatures:
            raise ArtifactError(f"there is no signature {DEFAULT_SIGNATURE}, only {sorted(self.signatures)}")

    def described(self) -> SignatureMap:
        """Its signatures on the wire."""
        told = SignatureMap()
        for name, definition in self.meta.signature_def.items():
            told.signature_def[name].CopyFrom(Signature.FromString(definition.SerializeToString()))
        return told


def _served_graph(content: bytes) -> meta_graph_pb2.MetaGraphDef:
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString(content)
    except DecodeError as error:
        raise ArtifactError(f"saved_model.pb can't be read: {error}") from error
    for meta in saved.meta_graphs:
        if _SERVE in meta.meta_info_def.tags:
            return meta
    raise ArtifactError(f"saved_model.pb holds no graph with the tag {_SERVE}")


def _prepared(definition: meta_graph_pb2.SignatureDef) -> Prepared:
    inputs, outputs = sorted(definition.inputs), sorted(definition.outputs)
    return Prepared(
        inputs={name: _expected(definition.inputs[name]) for name in inputs},
        outputs=tuple(outputs),
        options=config_pb2.CallableOptions(
            feed=[definition.inputs[name].name for name in inputs],
            fetch=[definition.outputs[name].name for name in outputs],
        ),
    )


def _expected(info: TensorInfo) -> Expected:
    shape = None if info.tensor_shape.unknown_rank else tuple(d.size for d in info.tensor_shape.dim)
    return Expected(info.dtype, shape)


class Slot:
    """A session over an architecture's graph, with the variables of one version at a time."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        # A request runs on the thread that has it: the server's own pool decides how many run at the same time, and
        # small graphs are not handed from thread to thread.
        config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=-1)
        self._session = tf.compat.v1.Session(graph=architecture.graph, config=config)
        # The session's public `run` looks at feeds and fetches anew each time, which costs three times the graph itself.
        self._calls = {
            name: self._session._make_callable_from_options(prepared.options)  # noqa: SLF001
            for name, prepared in architecture.signatures.items()
        }

    def restore(self, folder: Path) -> None:
        """Replace its variables by a version's; nobody may use the slot meanwhile.

        Raises:
            ArtifactError: they can't be read or do not fit; the slot is of no use then.
        """
        meta = self.architecture.meta
        assets = {asset.tensor_info.name: str(folder / "assets" / asset.filename) for asset in meta.asset_file_def}
        try:
            if meta.saver_def.restore_op_name:
                prefix = {meta.saver_def.filename_tensor_name: str(folder / "variables" / "variables")}
                self._session.run(meta.saver_def.restore_op_name, prefix | assets)
            if (init := _init_op(meta)) is not None:
                self._session.run(init, assets)
        except (tf.errors.OpError, ValueError) as error:
            raise ArtifactError(f"the variables can't be restored: {_first_line(error)}") from error

    def run(self, inputs: Mapping[str, Tensor], signature: str, wanted: Collection[str] = ()) -> dict[str, Tensor]:
        """Outputs by name, all or those that are wanted.

        Raises:
            InvalidError: the inputs, outputs or signature are not the model's.
            FailedError: the graph failed.
        """
        name = signature or DEFAULT_SIGNATURE
        prepared = self.architecture.signatures.get(name)
        if prepared is None:
            raise InvalidError(f"there is no signature {name}, only {sorted(self.architecture.signatures)}")
        if inputs.keys() != prepared.inputs.keys():
            missing, unknown = prepared.inputs.keys() - inputs.keys(), inputs.keys() - prepared.inputs.keys()
            raise InvalidError(f"inputs: missing are {sorted(missing)}, unknown are {sorted(unknown)}")
        if unknown := set(wanted) - set(prepared.outputs):
            raise InvalidError(f"outputs: unknown are {sorted(unknown)}")
        arrays = [_array(key, inputs[key], expected) for key, expected in prepared.inputs.items()]
        try:
            results = self._calls[name](*arrays)
        except tf.errors.InvalidArgumentError as error:
            raise InvalidError(_first_line(error)) from None
        except tf.errors.OpError as error:
            raise FailedError(_first_line(error)) from None
        return {
            key: _tensor(result)
            for key, result in zip(prepared.outputs, results, strict=True)
            if not wanted or key in wanted
        }

    def close(self) -> None:
        """Give back its memory."""
        self._calls = {}
        self._session.close()

    def example(self, rows: int, golden: Mapping[str, Any] | None) -> dict[str, Tensor]:
        """Inputs for a query of so many rows: the golden ones over and over where they fit, else zeros."""
        made = {}
        for name, expected in self.architecture.signatures[DEFAULT_SIGNATURE].inputs.items():
            dtype = tf.dtypes.as_dtype(expected.dtype).as_numpy_dtype
            shape = [rows, *(max(n, 1) for n in (expected.shape or (rows,))[1:])]
            array = np.zeros(shape, dtype)
            told = (golden or {}).get(name)
            if told is not None and len(told) and math.prod(shape) and dtype is not np.object_:
                with contextlib.suppress(ValueError, TypeError, OverflowError):  # what does not fit the validator tells
                    array = np.resize(np.asarray(told, dtype), shape)
            made[name] = _tensor(array)
        return made


def _init_op(meta: meta_graph_pb2.MetaGraphDef) -> str | None:
    if _INIT in meta.signature_def:
        return str(meta.signature_def[_INIT].outputs[_INIT].name)
    for key in ("saved_model_main_op", "legacy_init_op"):
        if key in meta.collection_def and meta.collection_def[key].node_list.value:
            return str(meta.collection_def[key].node_list.value[0])
    return None


def _array(name: str, tensor: Tensor, expected: Expected) -> NDArray[Any]:
    if (fault := expected.fault(tensor)) is not None:
        raise InvalidError(f"{name}: {fault}")
    try:
        return to_array(tensor)
    except TensorError as error:
        try:
            # Not by its bytes: as lists of values, which only TensorFlow's own message reads.
            return np.asarray(tf.make_ndarray(tensor_pb2.TensorProto.FromString(tensor.SerializeToString())))
        except (TypeError, ValueError):
            raise InvalidError(f"{name}: {error}") from None


def _tensor(result: NDArray[Any]) -> Tensor:
    try:
        return to_tensor(np.ascontiguousarray(result))
    except TensorError:
        return Tensor.FromString(tf.make_tensor_proto(result).SerializeToString())


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:500]
