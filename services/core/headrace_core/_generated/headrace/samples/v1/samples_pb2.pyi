from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Operation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPERATION_UNSPECIFIED: _ClassVar[Operation]
    OPERATION_INSERT: _ClassVar[Operation]
    OPERATION_CORRECT: _ClassVar[Operation]
OPERATION_UNSPECIFIED: Operation
OPERATION_INSERT: Operation
OPERATION_CORRECT: Operation

class Sample(_message.Message):
    __slots__ = ("request_id", "item_id", "user_id", "event_time", "label", "features", "feature_set_version", "model", "model_version", "propensity", "position", "score", "page_id", "version", "impression_offset", "log_offset")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SET_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    PAGE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IMPRESSION_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LOG_OFFSET_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    item_id: str
    user_id: str
    event_time: int
    label: int
    features: bytes
    feature_set_version: int
    model: str
    model_version: int
    propensity: float
    position: int
    score: float
    page_id: str
    version: int
    impression_offset: int
    log_offset: int
    def __init__(self, request_id: _Optional[str] = ..., item_id: _Optional[str] = ..., user_id: _Optional[str] = ..., event_time: _Optional[int] = ..., label: _Optional[int] = ..., features: _Optional[bytes] = ..., feature_set_version: _Optional[int] = ..., model: _Optional[str] = ..., model_version: _Optional[int] = ..., propensity: _Optional[float] = ..., position: _Optional[int] = ..., score: _Optional[float] = ..., page_id: _Optional[str] = ..., version: _Optional[int] = ..., impression_offset: _Optional[int] = ..., log_offset: _Optional[int] = ...) -> None: ...

class SampleChange(_message.Message):
    __slots__ = ("operation", "sample", "previous_label", "change_time")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_LABEL_FIELD_NUMBER: _ClassVar[int]
    CHANGE_TIME_FIELD_NUMBER: _ClassVar[int]
    operation: Operation
    sample: Sample
    previous_label: int
    change_time: int
    def __init__(self, operation: _Optional[_Union[Operation, str]] = ..., sample: _Optional[_Union[Sample, _Mapping]] = ..., previous_label: _Optional[int] = ..., change_time: _Optional[int] = ...) -> None: ...
