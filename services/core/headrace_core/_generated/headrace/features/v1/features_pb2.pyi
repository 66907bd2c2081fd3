from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FeatureLog(_message.Message):
    __slots__ = ("request_id", "user_id", "event_time", "page_id", "model", "model_version", "feature_set_version", "user_features", "context_features", "items", "fallbacks")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    PAGE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SET_VERSION_FIELD_NUMBER: _ClassVar[int]
    USER_FEATURES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FEATURES_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    FALLBACKS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    user_id: str
    event_time: int
    page_id: str
    model: str
    model_version: int
    feature_set_version: int
    user_features: bytes
    context_features: bytes
    items: _containers.RepeatedCompositeFieldContainer[LoggedItem]
    fallbacks: _containers.RepeatedCompositeFieldContainer[Fallback]
    def __init__(self, request_id: _Optional[str] = ..., user_id: _Optional[str] = ..., event_time: _Optional[int] = ..., page_id: _Optional[str] = ..., model: _Optional[str] = ..., model_version: _Optional[int] = ..., feature_set_version: _Optional[int] = ..., user_features: _Optional[bytes] = ..., context_features: _Optional[bytes] = ..., items: _Optional[_Iterable[_Union[LoggedItem, _Mapping]]] = ..., fallbacks: _Optional[_Iterable[_Union[Fallback, _Mapping]]] = ...) -> None: ...

class LoggedItem(_message.Message):
    __slots__ = ("item_id", "position", "score", "propensity", "source", "features")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    position: int
    score: float
    propensity: float
    source: str
    features: bytes
    def __init__(self, item_id: _Optional[str] = ..., position: _Optional[int] = ..., score: _Optional[float] = ..., propensity: _Optional[float] = ..., source: _Optional[str] = ..., features: _Optional[bytes] = ...) -> None: ...

class Fallback(_message.Message):
    __slots__ = ("what", "reason")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    what: str
    reason: str
    def __init__(self, what: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class FeaturePartial(_message.Message):
    __slots__ = ("feature", "definition", "key", "tile_start", "tile_ms", "source", "version", "watermark", "members", "counts", "denominators", "source_offset")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    TILE_START_FIELD_NUMBER: _ClassVar[int]
    TILE_MS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    DENOMINATORS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    feature: str
    definition: str
    key: _containers.RepeatedScalarFieldContainer[str]
    tile_start: int
    tile_ms: int
    source: int
    version: int
    watermark: int
    members: _containers.RepeatedScalarFieldContainer[str]
    counts: _containers.RepeatedScalarFieldContainer[int]
    denominators: _containers.RepeatedScalarFieldContainer[int]
    source_offset: int
    def __init__(self, feature: _Optional[str] = ..., definition: _Optional[str] = ..., key: _Optional[_Iterable[str]] = ..., tile_start: _Optional[int] = ..., tile_ms: _Optional[int] = ..., source: _Optional[int] = ..., version: _Optional[int] = ..., watermark: _Optional[int] = ..., members: _Optional[_Iterable[str]] = ..., counts: _Optional[_Iterable[int]] = ..., denominators: _Optional[_Iterable[int]] = ..., source_offset: _Optional[int] = ...) -> None: ...

class FeatureSeed(_message.Message):
    __slots__ = ("feature", "definition", "source", "until_offset", "state")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_OFFSET_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    feature: str
    definition: str
    source: int
    until_offset: int
    state: bytes
    def __init__(self, feature: _Optional[str] = ..., definition: _Optional[str] = ..., source: _Optional[int] = ..., until_offset: _Optional[int] = ..., state: _Optional[bytes] = ...) -> None: ...
