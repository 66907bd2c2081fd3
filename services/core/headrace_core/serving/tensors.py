"""Arrays as tensors on the wire, and back: by their bytes alone."""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace_core.serving.messages import DataType, Tensor, TensorDim, TensorShape

_DTYPES: Final[dict[int, np.dtype[Any]]] = {
    DataType.DATA_TYPE_FLOAT: np.dtype("<f4"),
    DataType.DATA_TYPE_DOUBLE: np.dtype("<f8"),
    DataType.DATA_TYPE_INT32: np.dtype("<i4"),
    DataType.DATA_TYPE_INT64: np.dtype("<i8"),
    DataType.DATA_TYPE_BOOL: np.dtype("?"),
}
_TYPES: Final = {dtype: number for number, dtype in _DTYPES.items()}


class TensorError(ValueError):
    """A tensor that does not hold what it says."""


def to_tensor(array: NDArray[Any]) -> Tensor:
    """The array on the wire.

    Raises:
        TensorError: its elements are of a type that is not sent.
    """
    try:
        dtype = _TYPES[array.dtype]
    except KeyError:
        raise TensorError(f"arrays of {array.dtype} are not sent") from None
    shape = TensorShape(dim=[TensorDim(size=n) for n in array.shape])
    return Tensor(dtype=dtype, tensor_shape=shape, tensor_content=array.tobytes())  # type: ignore[arg-type]  # an enum's number


def to_array(tensor: Tensor) -> NDArray[Any]:
    """The tensor's elements, a view of its bytes that can't be written to.

    Raises:
        TensorError: its type is not known, or its bytes are not as many as its shape says.
    """
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise TensorError(f"elements of type {tensor.dtype} are not read from bytes")
    if tensor.tensor_shape.unknown_rank:
        raise TensorError("the shape is not told")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if any(n < 0 for n in shape):
        raise TensorError(f"the shape {shape} is not whole")
    content = tensor.tensor_content
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise TensorError(f"{len(content)} bytes, but {shape} of {dtype.name} are {math.prod(shape) * dtype.itemsize}")
    return np.frombuffer(content, dtype).reshape(shape)


def dtype_name(number: int) -> str:
    """int64, float32 …; the number itself for what is not known."""
    dtype = _DTYPES.get(number)
    return str(number) if dtype is None else dtype.name
