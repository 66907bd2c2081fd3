"""From rows to a logit: what training and serving share.

Wide & deep (Cheng et al. 2016): linear weights of ids and crosses beside a multilayer perceptron over embeddings. DCN-v2 (Wang et
al. 2021): a cross network, x_{l+1} = x_0 ∘ (W_l x_l + b_l) + x_l, beside the perceptron. Linear: the linear weights alone.
"""

from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf
from headrace_core.definitions.models import Architecture, NumberInput

from headrace_trainer.network.layout import Layout

Tensor: TypeAlias = Any

_CLIP: Final = 1e-4


class Looked(NamedTuple):
    """What was looked up for a batch.

    Attributes:
        embedded: `[n, columns, width]`; None in a linear model.
        embedded_lists: `[n, length, width]` of each list.
        linear: `[n, columns]`.
        linear_lists: `[n, length]` of each list.
        linear_crosses: `[n, crosses]`.
        present: `[n, length]` of each list, 1 where there is an id.
        numbers: `[n, numbers]`.
    """

    embedded: Tensor
    embedded_lists: list[Tensor]
    linear: Tensor
    linear_lists: list[Tensor]
    linear_crosses: Tensor
    present: list[Tensor]
    numbers: Tensor


def dense_shapes(layout: Layout, architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """The network's own variables."""
    wide = len(layout.numbers)
    buckets = sum(len(n.buckets) + 1 for n in layout.numbers if n.buckets)
    shapes: dict[str, tuple[int, ...]] = {"bias": (1,), "numbers": (max(1, wide), 1), "buckets": (max(1, buckets), 1)}
    if architecture.kind == "linear":
        return shapes
    width = (len(layout.ids.columns) + len(layout.ids.lists)) * architecture.embedding + wide + buckets
    if architecture.kind == "dcn_v2":
        for n in range(architecture.cross_layers):
            shapes[f"cross_{n}"], shapes[f"cross_bias_{n}"] = (width, width), (width,)
        shapes["cross_out"] = (width, 1)
    before = width
    for n, units in enumerate(architecture.hidden):
        shapes[f"hidden_{n}"], shapes[f"hidden_bias_{n}"] = (before, units), (units,)
        before = units
    shapes["deep_out"] = (before, 1)
    return shapes


def initial_dense(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Glorot uniform for matrices of layers, zeros for the rest."""
    random = np.random.default_rng(seed)
    made = {}
    for name, shape in shapes.items():
        if len(shape) == 2 and name not in {"numbers", "buckets"}:
            limit = np.sqrt(6 / sum(shape))
            made[name] = random.uniform(-limit, limit, shape).astype(np.float32)
        else:
            made[name] = np.zeros(shape, np.float32)
    return made


def logit(dense: dict[str, Tensor], looked: Looked, layout: Layout, architecture: Architecture) -> Tensor:
    """`[n]`: the logarithm of the odds of a click."""
    counts = [tf.maximum(tf.reduce_sum(p, 1, keepdims=True), 1.0) for p in looked.present]
    numbers, buckets = _transformed(looked.numbers, layout.numbers)
    answer = dense["bias"][0] + tf.reduce_sum(looked.linear, 1) + tf.reduce_sum(looked.linear_crosses, 1)
    for linear, present, count in zip(looked.linear_lists, looked.present, counts, strict=True):
        answer += tf.reduce_sum(linear * present, 1) / count[:, 0]
    if layout.numbers:
        answer += (numbers @ dense["numbers"])[:, 0]
    if buckets is not None:
        answer += (buckets @ dense["buckets"])[:, 0]
    if architecture.kind == "linear":
        return answer
    parts = [tf.reshape(looked.embedded, [-1, len(layout.ids.columns) * architecture.embedding])]
    for vectors, present, count in zip(looked.embedded_lists, looked.present, counts, strict=True):
        parts.append(tf.einsum("nle,nl->ne", vectors, present) / count)
    parts += [p for p in (numbers if layout.numbers else None, buckets) if p is not None]
    x0 = tf.concat(parts, 1)
    if architecture.kind == "dcn_v2":
        x = x0
        for n in range(architecture.cross_layers):
            x = x0 * (x @ dense[f"cross_{n}"] + dense[f"cross_bias_{n}"]) + x
        answer += (x @ dense["cross_out"])[:, 0]
    x = x0
    for n in range(len(architecture.hidden)):
        x = tf.nn.relu(x @ dense[f"hidden_{n}"] + dense[f"hidden_bias_{n}"])
    return answer + (x @ dense["deep_out"])[:, 0]


def _transformed(numbers: Tensor, told: tuple[NumberInput, ...]) -> tuple[Tensor, Tensor | None]:
    """Numbers after their transforms `[n, numbers]`, and the buckets they fall into `[n, all buckets]`."""
    columns, buckets = [], []
    for n, number in enumerate(told):
        x = numbers[:, n]
        if number.buckets:
            place = tf.reduce_sum(tf.cast(x[:, None] > tf.constant(number.buckets, tf.float32), tf.int32), 1)
            buckets.append(tf.one_hot(place, len(number.buckets) + 1))
            columns.append(tf.zeros_like(x))  # the bucket says it all
        elif number.transform == "log":
            columns.append(tf.sign(x) * tf.math.log1p(tf.abs(x)))
        elif number.transform == "logit":
            p = tf.clip_by_value(x, _CLIP, 1 - _CLIP)
            columns.append(tf.math.log(p / (1 - p)))
        else:
            columns.append(x)
    return (tf.stack(columns, 1) if columns else numbers), (tf.concat(buckets, 1) if buckets else None)
