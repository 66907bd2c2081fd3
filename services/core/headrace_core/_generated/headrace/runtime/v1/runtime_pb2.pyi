from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class DeadLetter(_message.Message):
    __slots__ = ("raw", "raw_key", "reason", "topic", "partition", "offset", "consumer", "reject_time")
    RAW_FIELD_NUMBER: _ClassVar[int]
    RAW_KEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    REJECT_TIME_FIELD_NUMBER: _ClassVar[int]
    raw: bytes
    raw_key: bytes
    reason: str
    topic: str
    partition: int
    offset: int
    consumer: str
    reject_time: int
    def __init__(self, raw: _Optional[bytes] = ..., raw_key: _Optional[bytes] = ..., reason: _Optional[str] = ..., topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ..., consumer: _Optional[str] = ..., reject_time: _Optional[int] = ...) -> None: ...
