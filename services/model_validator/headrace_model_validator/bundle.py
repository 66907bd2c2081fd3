"""Variables as TensorFlow writes them, read without TensorFlow (which takes 8 s and 500 MB to import).

`variables.index` is a table as LevelDB writes it (github.com/google/leveldb, doc/table_format.md), never compressed: sorted keys in
blocks, blocks in an index block, its place in the footer. Values are BundleEntryProto, which tell where in the data files the bytes
of a tensor are (tensorflow/core/protobuf/tensor_bundle.proto).
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from headrace_core.serving.messages import TensorShape
from numpy.typing import NDArray

_FOOTER_BYTES: Final = 48
_MAGIC: Final = 0xDB4775248B80FB57
_TRAILER_BYTES: Final = 5
#: By tensorflow.DataType; what is not in here (texts) holds no weights.
_DTYPES: Final = {
    1: "<f4", 2: "<f8", 3: "<i4", 4: "<u1", 5: "<i2", 6: "<i1", 9: "<i8", 10: "?", 17: "<u2", 19: "<f2", 22: "<u4", 23: "<u8",
}  # fmt: skip


class BundleError(ValueError):
    """The files are not what TensorFlow writes, or do not belong together."""


class Entry(NamedTuple):
    """Where a tensor is.

    Attributes:
        dtype: number of its elements' type.
        shape: of the tensor.
        shard: which data file holds it.
        offset, size: its bytes in there.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int


def read_index(content: bytes) -> tuple[int, dict[str, Entry]]:
    """Number of data files, and each tensor by its name.

    Raises:
        BundleError: the content is no index.
    """
    try:
        entries = dict(_table(content))
        header = dict(_fields(entries.pop(b"")))
        return int(header.get(1, 1)), {key.decode(): _entry(value) for key, value in entries.items()}
    except (IndexError, KeyError, struct.error, UnicodeDecodeError, TypeError, DecodeError) as error:
        raise BundleError(f"variables.index can't be read: {error!r}") from error


def read_variables(index: bytes, shards: Mapping[int, bytes]) -> dict[str, NDArray[Any]]:
    """Numeric tensors by name, views of the data files' bytes.

    Args:
        index: content of variables.index.
        shards: content of each data file by number.

    Raises:
        BundleError: the files do not belong together.
    """
    _, entries = read_index(index)
    found: dict[str, NDArray[Any]] = {}
    for name, entry in entries.items():
        if entry.dtype not in _DTYPES:
            continue
        dtype = np.dtype(_DTYPES[entry.dtype])
        data = shards.get(entry.shard)
        if data is None or entry.offset + entry.size > len(data):
            raise BundleError(f"{name}: the data file {entry.shard} is missing or cut off")
        if entry.size != dtype.itemsize * int(np.prod(entry.shape, dtype=np.int64)):
            raise BundleError(f"{name}: {entry.size} bytes are not {list(entry.shape)} of {dtype.name}")
        found[name] = np.frombuffer(data, dtype, entry.size // dtype.itemsize, entry.offset).reshape(entry.shape)
    return found


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    footer = content[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or struct.unpack_from("<Q", footer, 40)[0] != _MAGIC:
        raise BundleError("variables.index is no table, or is cut off")
    _, at = _handle(footer, 0)  # of the meta index, which is empty
    index, _ = _handle(footer, at)
    for _, handle in _block(content, *index):
        block, _ = _handle(handle, 0)
        yield from _block(content, *block)


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    block = content[offset : offset + size]
    if len(content) < offset + size + _TRAILER_BYTES or content[offset + size] != 0:
        raise BundleError("variables.index is cut off or compressed")
    end = size - 4 - 4 * int(struct.unpack_from("<I", block, size - 4)[0])
    key, at = b"", 0
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Fields of a message by number: integers, or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
                yield tag >> 3, value
            case 1:
                at += 8
            case 2:
                length, at = _varint(data, at)
                yield tag >> 3, data[at : at + length]
                at += length
            case 5:
                at += 4
            case _:
                raise BundleError("variables.index holds an entry that can't be read")


def _entry(value: bytes) -> Entry:
    fields = dict(_fields(value))
    if 7 in fields:
        raise BundleError("a tensor is kept in slices, which are not read")
    shape = tuple(dim.size for dim in TensorShape.FromString(fields.get(2, b"")).dim)
    return Entry(fields.get(1, 0), shape, fields.get(3, 0), fields.get(4, 0), fields.get(5, 0))
