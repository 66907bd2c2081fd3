from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class User(_message.Message):
    __slots__ = ("user_id", "country", "gender", "city", "attributes", "update_time")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    GENDER_FIELD_NUMBER: _ClassVar[int]
    CITY_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    country: str
    gender: str
    city: str
    attributes: _containers.ScalarMap[str, str]
    update_time: int
    def __init__(self, user_id: _Optional[str] = ..., country: _Optional[str] = ..., gender: _Optional[str] = ..., city: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ..., update_time: _Optional[int] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("item_id", "item_type", "category", "title", "available", "created_at", "attributes", "update_time")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_TYPE_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    item_type: str
    category: str
    title: str
    available: bool
    created_at: int
    attributes: _containers.ScalarMap[str, str]
    update_time: int
    def __init__(self, item_id: _Optional[str] = ..., item_type: _Optional[str] = ..., category: _Optional[str] = ..., title: _Optional[str] = ..., available: _Optional[bool] = ..., created_at: _Optional[int] = ..., attributes: _Optional[_Mapping[str, str]] = ..., update_time: _Optional[int] = ...) -> None: ...
