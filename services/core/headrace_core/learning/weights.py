"""One hash for the weights of an artifact, whoever computes it."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def weights_hash(variables: Mapping[str, npt.NDArray[Any]]) -> str:
    """sha256 over name, a zero byte, and the bytes of each variable, in the order of the names.

    Args:
        variables: numeric tensors of `variables/variables` by their names there, as `tf.train.load_checkpoint` tells them; what
            TensorFlow writes beside them (`_CHECKPOINTABLE_OBJECT_GRAPH`, a text) is left out.
    """
    digest = hashlib.sha256()
    for name, array in sorted(variables.items()):
        digest.update(name.encode() + b"\0" + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
