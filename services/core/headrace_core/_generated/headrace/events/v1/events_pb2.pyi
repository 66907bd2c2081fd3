from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_UNSPECIFIED: _ClassVar[Action]
    ACTION_IMPRESSION: _ClassVar[Action]
    ACTION_CLICK: _ClassVar[Action]
    ACTION_VIEW: _ClassVar[Action]
    ACTION_FAVORITE: _ClassVar[Action]
    ACTION_CART: _ClassVar[Action]
    ACTION_CONSULT: _ClassVar[Action]
    ACTION_COMMENT: _ClassVar[Action]
    ACTION_PURCHASE: _ClassVar[Action]
    ACTION_SEARCH: _ClassVar[Action]

class Enrichment(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENRICHMENT_UNSPECIFIED: _ClassVar[Enrichment]
    ENRICHMENT_COMPLETE: _ClassVar[Enrichment]
    ENRICHMENT_MISSING: _ClassVar[Enrichment]
ACTION_UNSPECIFIED: Action
ACTION_IMPRESSION: Action
ACTION_CLICK: Action
ACTION_VIEW: Action
ACTION_FAVORITE: Action
ACTION_CART: Action
ACTION_CONSULT: Action
ACTION_COMMENT: Action
ACTION_PURCHASE: Action
ACTION_SEARCH: Action
ENRICHMENT_UNSPECIFIED: Enrichment
ENRICHMENT_COMPLETE: Enrichment
ENRICHMENT_MISSING: Enrichment

class BehaviorEvent(_message.Message):
    __slots__ = ("event_id", "user_id", "event_time", "ingest_time", "action", "item_id", "item_type", "category", "page_id", "request_id", "position", "view_id", "dwell_ms", "query", "corrects", "sent_at", "segment", "attributes", "enrichment")
    class SegmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    INGEST_TIME_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_TYPE_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    PAGE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    VIEW_ID_FIELD_NUMBER: _ClassVar[int]
    DWELL_MS_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    CORRECTS_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    ENRICHMENT_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    user_id: str
    event_time: int
    ingest_time: int
    action: Action
    item_id: str
    item_type: str
    category: str
    page_id: str
    request_id: str
    position: int
    view_id: str
    dwell_ms: int
    query: str
    corrects: str
    sent_at: int
    segment: _containers.ScalarMap[str, str]
    attributes: _containers.ScalarMap[str, str]
    enrichment: Enrichment
    def __init__(self, event_id: _Optional[str] = ..., user_id: _Optional[str] = ..., event_time: _Optional[int] = ..., ingest_time: _Optional[int] = ..., action: _Optional[_Union[Action, str]] = ..., item_id: _Optional[str] = ..., item_type: _Optional[str] = ..., category: _Optional[str] = ..., page_id: _Optional[str] = ..., request_id: _Optional[str] = ..., position: _Optional[int] = ..., view_id: _Optional[str] = ..., dwell_ms: _Optional[int] = ..., query: _Optional[str] = ..., corrects: _Optional[str] = ..., sent_at: _Optional[int] = ..., segment: _Optional[_Mapping[str, str]] = ..., attributes: _Optional[_Mapping[str, str]] = ..., enrichment: _Optional[_Union[Enrichment, str]] = ...) -> None: ...
