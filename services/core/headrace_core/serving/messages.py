"""The messages of TensorFlow Serving's protocol as Python names, and its methods' paths."""

from typing import Final

from headrace_core._generated.headrace.tfserving.v1.tfserving_pb2 import (
    AllVersions,
    DataType,
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    LatestVersions,
    ModelConfig,
    ModelConfigList,
    ModelServerConfig,
    ModelSpec,
    ModelVersionStatus,
    PredictRequest,
    PredictResponse,
    ReloadConfigRequest,
    ReloadConfigResponse,
    Signature,
    SignatureMap,
    SpecificVersions,
    Status,
    Tensor,
    TensorDim,
    TensorInfo,
    TensorShape,
    TypedBytes,
    VersionNumber,
    VersionPolicy,
    VersionState,
)

__all__ = [
    "DEFAULT_SIGNATURE",
    "GET_MODEL_METADATA",
    "GET_MODEL_STATUS",
    "MAX_MESSAGE_BYTES",
    "PREDICT",
    "RELOAD_CONFIG",
    "SIGNATURE_FIELD",
    "SIGNATURE_TYPE",
    "AllVersions",
    "DataType",
    "GetModelMetadataRequest",
    "GetModelMetadataResponse",
    "GetModelStatusRequest",
    "GetModelStatusResponse",
    "LatestVersions",
    "ModelConfig",
    "ModelConfigList",
    "ModelServerConfig",
    "ModelSpec",
    "ModelVersionStatus",
    "PredictRequest",
    "PredictResponse",
    "ReloadConfigRequest",
    "ReloadConfigResponse",
    "Signature",
    "SignatureMap",
    "SpecificVersions",
    "Status",
    "Tensor",
    "TensorDim",
    "TensorInfo",
    "TensorShape",
    "TypedBytes",
    "VersionNumber",
    "VersionPolicy",
    "VersionState",
]

PREDICT: Final = "/tensorflow.serving.PredictionService/Predict"
GET_MODEL_METADATA: Final = "/tensorflow.serving.PredictionService/GetModelMetadata"
GET_MODEL_STATUS: Final = "/tensorflow.serving.ModelService/GetModelStatus"
RELOAD_CONFIG: Final = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"

DEFAULT_SIGNATURE: Final = "serving_default"

#: The one field of metadata that there is, and the type it comes as.
SIGNATURE_FIELD: Final = "signature_def"
SIGNATURE_TYPE: Final = "type.googleapis.com/tensorflow.serving.SignatureDefMap"

#: 500 candidates with long sequences are far below; what is above is a mistake.
MAX_MESSAGE_BYTES: Final = 64 * 2**20
