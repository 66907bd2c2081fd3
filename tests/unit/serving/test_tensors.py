from typing import Any

import numpy as np
import pytest
from headrace_core.serving.messages import DataType, Tensor, TensorDim, TensorShape
from headrace_core.serving.tensors import TensorError, to_array, to_tensor
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

SENT = st.sampled_from([np.dtype(t) for t in ("<f4", "<f8", "<i4", "<i8", "?")])


@given(arrays.arrays(SENT, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
def test_array_comes_back_bit_by_bit(array: np.ndarray[Any, Any]) -> None:
    again = to_array(Tensor.FromString(to_tensor(array).SerializeToString()))

    assert (again.dtype, again.shape, again.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_view_that_is_not_contiguous_is_sent_as_it_looks() -> None:
    array = np.arange(12, dtype=np.int64).reshape(3, 4)[:, ::2]

    assert np.array_equal(to_array(to_tensor(array)), array)


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (Tensor(dtype=DataType.DATA_TYPE_INT64, tensor_content=b"1234567"), "7 bytes, but"),
        (Tensor(dtype=DataType.DATA_TYPE_STRING), "elements of type 7"),
        (Tensor(dtype=DataType.DATA_TYPE_INT64, tensor_shape=TensorShape(unknown_rank=True)), "shape is not told"),
        (
            Tensor(dtype=DataType.DATA_TYPE_INT64, tensor_shape=TensorShape(dim=[TensorDim(size=-1)])),
            "is not whole",
        ),
    ],
)
def test_tensor_that_does_not_hold_what_it_says_is_refused(tensor: Tensor, says: str) -> None:
    with pytest.raises(TensorError, match=says):
        to_array(tensor)


def test_texts_are_not_sent() -> None:
    with pytest.raises(TensorError, match="are not sent"):
        to_tensor(np.array(["a"]))
