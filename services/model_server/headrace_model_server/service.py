"""TensorFlow Serving's gRPC services."""

import logging
import time
from collections.abc import Callable
from typing import Any, Final

import grpc
from headrace_core.serving.messages import (
    DEFAULT_SIGNATURE,
    SIGNATURE_FIELD,
    SIGNATURE_TYPE,
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelSpec,
    ModelVersionStatus,
    PredictRequest,
    PredictResponse,
    ReloadConfigRequest,
    ReloadConfigResponse,
    Status,
    TypedBytes,
    VersionNumber,
)
from headrace_core.telemetry import REQUEST_SECONDS

from headrace_model_server.aspirations import Aspirations
from headrace_model_server.errors import InvalidError, ServeError
from headrace_model_server.library import Library

log = logging.getLogger(__name__)

_OK: Final = grpc.StatusCode.OK.name


class Service:
    """Answers by a library.

    Args:
        library: of what is loaded.
        aspirations: told of a new configuration.
    """

    def __init__(self, library: Library, aspirations: Aspirations) -> None:
        self._library, self._aspirations = library, aspirations

    def predict(self, request: PredictRequest) -> PredictResponse:
        """Scores."""
        with self._library.held(request.model_spec) as (version, slot):
            outputs = slot.run(request.inputs, request.model_spec.signature_name, request.output_filter)
        answer = PredictResponse(model_spec=_named(request.model_spec, version))
        answer.model_spec.signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        for name, tensor in outputs.items():
            answer.outputs[name].CopyFrom(tensor)
        return answer

    def metadata(self, request: GetModelMetadataRequest) -> GetModelMetadataResponse:
        """What a version takes and gives."""
        if list(request.metadata_field) != [SIGNATURE_FIELD]:
            raise InvalidError(f"metadata_field: {SIGNATURE_FIELD} is all there is")
        with self._library.held(request.model_spec) as (version, slot):
            told = slot.architecture.described()
        answer = GetModelMetadataResponse(model_spec=_named(request.model_spec, version))
        answer.metadata[SIGNATURE_FIELD].CopyFrom(TypedBytes(type_url=SIGNATURE_TYPE, value=told.SerializeToString()))
        return answer

    def status(self, request: GetModelStatusRequest) -> GetModelStatusResponse:
        """The versions of a model."""
        return GetModelStatusResponse(
            model_version_status=[
                ModelVersionStatus(
                    version=v.number, state=v.state, status=Status(error_code=v.code, error_message=v.error)
                )
                for v in self._library.versions(request.model_spec)
            ]
        )

    def reload(self, request: ReloadConfigRequest) -> ReloadConfigResponse:
        """Serve what is told from now on; loading goes on after the answer."""
        self._aspirations.told(request.config)
        return ReloadConfigResponse(status=Status())


def _named(spec: ModelSpec, version: int) -> ModelSpec:
    return ModelSpec(name=spec.name, version=VersionNumber(value=version))


def add_service(server: grpc.Server, service: Service) -> None:
    """Answer TensorFlow Serving's methods on a server; its others are UNIMPLEMENTED."""
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "tensorflow.serving.PredictionService",
                {
                    "Predict": _method(service.predict, PredictRequest, "Predict"),
                    "GetModelMetadata": _method(service.metadata, GetModelMetadataRequest, "GetModelMetadata"),
                },
            ),
            grpc.method_handlers_generic_handler(
                "tensorflow.serving.ModelService",
                {
                    "GetModelStatus": _method(service.status, GetModelStatusRequest, "GetModelStatus"),
                    "HandleReloadConfigRequest": _method(service.reload, ReloadConfigRequest, "ReloadConfig"),
                },
            ),
        )
    )


def _method(answer: Callable[[Any], Any], request: type[Any], name: str) -> grpc.RpcMethodHandler:
    good = REQUEST_SECONDS.labels(name, _OK)

    def handle(asked: Any, context: grpc.ServicerContext) -> Any:
        started = time.perf_counter()
        if not context.is_active():
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "it waited for too long")
        try:
            told = answer(asked)
        except ServeError as error:
            REQUEST_SECONDS.labels(name, error.code.name).observe(time.perf_counter() - started)
            context.abort(error.code, str(error))
        except Exception:  # the edge: what nobody foresaw is logged and told without details
            log.exception("a call failed", extra={"fields": {"method": name}})
            REQUEST_SECONDS.labels(name, grpc.StatusCode.INTERNAL.name).observe(time.perf_counter() - started)
            context.abort(grpc.StatusCode.INTERNAL, "the server failed; its log tells more")
        else:
            good.observe(time.perf_counter() - started)
            return told

    return grpc.unary_unary_rpc_method_handler(
        handle, request_deserializer=request.FromString, response_serializer=lambda told: told.SerializeToString()
    )
