"""A client of model servers, ours or TensorFlow's own."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

import grpc
import grpc.aio
from google.protobuf.message import Message
from numpy.typing import NDArray

from headrace_core.serving.messages import (
    GET_MODEL_METADATA,
    GET_MODEL_STATUS,
    MAX_MESSAGE_BYTES,
    PREDICT,
    RELOAD_CONFIG,
    SIGNATURE_FIELD,
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelConfig,
    ModelConfigList,
    ModelServerConfig,
    ModelSpec,
    PredictRequest,
    PredictResponse,
    ReloadConfigRequest,
    ReloadConfigResponse,
    Signature,
    SignatureMap,
    SpecificVersions,
    VersionNumber,
    VersionPolicy,
    VersionState,
)
from headrace_core.serving.tensors import TensorError, to_array, to_tensor

#: A server that was restarted is found again within a second; gRPC's own default is up to two minutes.
_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    ("grpc.enable_http_proxy", 0),
)
_GIVEN_UP: Final = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)


class ServingError(Exception):
    """A model server gave no answer. The message names the server, the model, and what it said."""


class NotLoadedError(ServingError):
    """It does not have that model or version."""


class RefusedError(ServingError):
    """It does not take these inputs or this configuration; asking again changes nothing."""


class AwayError(ServingError):
    """It is away, too slow or failing."""


class Scored(NamedTuple):
    """An answer.

    Attributes:
        version: that answered.
        outputs: by name.
    """

    version: int
    outputs: dict[str, NDArray[Any]]


class VersionStatus(NamedTuple):
    """A version on a server.

    Attributes:
        state: where in its life it is.
        error: why it ended; empty if by no fault.
        code: of the error, gRPC's; 0 for none.
    """

    state: VersionState
    error: str = ""
    code: int = 0


@dataclass(frozen=True, slots=True)
class Aspired:
    """A model that a server is to have.

    Attributes:
        base_path: folder or URL with a folder for each version.
        versions: exactly these.
        labels: versions by label.
    """

    base_path: str
    versions: tuple[int, ...]
    labels: Mapping[str, int] = field(default_factory=dict)


class ModelServerClient:
    """Speaks to one address; a name with several addresses is asked in turn.

    Args:
        address: host:port. Nothing is connected before the first call.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._predict = self._method(PREDICT, PredictResponse)
        self._metadata = self._method(GET_MODEL_METADATA, GetModelMetadataResponse)
        self._status = self._method(GET_MODEL_STATUS, GetModelStatusResponse)
        self._reload = self._method(RELOAD_CONFIG, ReloadConfigResponse)

    def _method(self, path: str, answer: type[Message]) -> Any:
        return self._channel.unary_unary(path, request_serializer=_to_bytes, response_deserializer=answer.FromString)

    async def __aenter__(self) -> Self:
        """Itself; nothing is connected yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way fail."""
        await self._channel.close()

    async def predict(
        self, model: str, version: int | None, inputs: Mapping[str, NDArray[Any]], *, timeout_s: float
    ) -> Scored:
        """The outputs for these inputs.

        Args:
            model: name.
            version: None for the newest that is loaded.
            inputs: by name, all with the same first dimension.
            timeout_s: the server gives up as well when it is over.

        Raises:
            NotLoadedError: the server does not have it.
            RefusedError: it does not take these inputs.
            AwayError: no answer in time.
        """
        request = PredictRequest(model_spec=_spec(model, version))
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(to_tensor(array))
        what = f"{model} version {version}"
        answer: PredictResponse = await self._call(self._predict, request, what, timeout_s, patient=False)
        try:
            outputs = {name: to_array(tensor) for name, tensor in answer.outputs.items()}
        except TensorError as error:
            raise AwayError(f"{self.address}: {model} version {version}: {error}") from error
        return Scored(answer.model_spec.version.value, outputs)

    async def status(self, model: str, *, timeout_s: float = 5.0) -> dict[int, VersionStatus]:
        """Its versions, those that ended lately included; none for a model that the server does not know.

        Raises:
            AwayError: no answer in time.
        """
        request = GetModelStatusRequest(model_spec=ModelSpec(name=model))
        try:
            answer: GetModelStatusResponse = await self._call(self._status, request, model, timeout_s)
        except NotLoadedError:
            return {}
        return {
            v.version: VersionStatus(
                v.state, v.status.error_message if v.status.error_code else "", v.status.error_code
            )
            for v in answer.model_version_status
        }

    async def signature(self, model: str, version: int, name: str, *, timeout_s: float = 5.0) -> Signature | None:
        """What a version takes and gives under a signature's name; None when it has no such signature.

        Raises:
            ServingError: as `predict`.
        """
        request = GetModelMetadataRequest(model_spec=_spec(model, version), metadata_field=[SIGNATURE_FIELD])
        answer: GetModelMetadataResponse = await self._call(
            self._metadata, request, f"{model} version {version}", timeout_s
        )
        signatures = SignatureMap.FromString(answer.metadata[SIGNATURE_FIELD].value).signature_def
        return signatures.get(name)

    async def reload(self, models: Mapping[str, Aspired], *, timeout_s: float = 30.0) -> None:
        """Tell the server all that it is to have; what is not named is unloaded. Loading goes on after this.

        Raises:
            RefusedError: it does not take this configuration.
            AwayError: no answer in time.
        """
        config = ModelServerConfig(model_config_list=ModelConfigList(config=_configs(models)))
        answer: ReloadConfigResponse = await self._call(
            self._reload, ReloadConfigRequest(config=config), ", ".join(models), timeout_s
        )
        if answer.status.error_code:
            raise RefusedError(f"{self.address}: {answer.status.error_message}")

    async def _call(self, method: Any, request: Message, what: str, timeout_s: float, *, patient: bool = True) -> Any:
        """An answer; who is patient waits for a server that is just being started, who is not is told at once."""
        try:
            return await method(request, timeout=timeout_s, wait_for_ready=patient)
        except grpc.aio.AioRpcError as error:
            code, told = error.code(), f"{self.address}: {what}: {error.code().name}: {error.details()}"
            if code == grpc.StatusCode.NOT_FOUND:
                raise NotLoadedError(told) from None
            raise (RefusedError if code in _GIVEN_UP else AwayError)(told) from None
        except asyncio.CancelledError:
            # A channel closed under a call cancels it; that is no cancellation of ours.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise AwayError(f"{self.address}: {what}: the connection was closed") from None


def _to_bytes(message: Message) -> bytes:
    return message.SerializeToString()


def _spec(model: str, version: int | None) -> ModelSpec:
    return ModelSpec(name=model, version=None if version is None else VersionNumber(value=version))


def _configs(models: Mapping[str, Aspired]) -> Iterable[ModelConfig]:
    for name, aspired in models.items():
        yield ModelConfig(
            name=name,
            base_path=aspired.base_path,
            model_platform="tensorflow",
            model_version_policy=VersionPolicy(specific=SpecificVersions(versions=aspired.versions)),
            version_labels=aspired.labels,
        )
