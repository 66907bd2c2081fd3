"""Small SavedModels as the trainer writes them: sorted keys and weights in variables, one graph for all versions.

What a version answers is known without TensorFlow: `expected`.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from headrace_core.learning.weights import weights_hash
from numpy.typing import NDArray

INPUTS: Final[list[dict[str, Any]]] = [
    {"name": "item_id", "kind": "id", "dtype": "int64", "shape": [None]},
    {"name": "recent", "kind": "ids", "dtype": "int64", "shape": [None, 3]},
    {"name": "rate", "kind": "number", "dtype": "float32", "shape": [None]},
]


@dataclass(frozen=True)
class Weights:
    """What a version's variables hold.

    Attributes:
        bias: of every score's logit.
        rows: logit by item id.
        rate: factor of the input `rate`.
    """

    bias: float = 0.0
    rows: Mapping[int, float] = field(default_factory=dict)
    rate: float = 0.0


def inputs(*items: int, rate: float = 0.0) -> dict[str, NDArray[Any]]:
    """Columns for these items."""
    return {
        "item_id": np.array(items, np.int64),
        "recent": np.zeros((len(items), 3), np.int64),
        "rate": np.full(len(items), rate, np.float32),
    }


def expected(weights: Weights, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Scores of a version, float32."""
    known = np.array([weights.rows.get(int(i), 0.0) for i in columns["item_id"]], np.float32)
    logit = np.float32(weights.bias) + known + np.float32(weights.rate) * columns["rate"]
    return (1 / (1 + np.exp(-logit))).astype(np.float32)


def export(  # noqa: PLR0913  # each is a thing that a test makes differ
    root: Path,
    model: str,
    version: int,
    weights: Weights,
    *,
    parent: tuple[str, int] | None = None,
    dtypes: Mapping[str, str] | None = None,
    manifest: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Path:
    """Write a version beside and rename it, as the trainer does.

    Args:
        root: of all models.
        model: its name.
        version: its number.
        weights: of the version.
        parent: what it stands on.
        dtypes: of inputs that are to differ from INPUTS.
        manifest: fields that replace what is true of it.
        metrics: progressive ones.
    """
    import tensorflow as tf  # noqa: PLC0415  # takes seconds, only those who export need it

    graph = _graph(root / ".graphs", dict(dtypes or {}))
    folder = root / model / str(version)
    partial = root / model / f".{version}"
    shutil.copytree(graph, partial)
    prefix = str(partial / "variables" / "variables")
    reader = tf.train.load_checkpoint(prefix)
    keys = np.array(sorted(weights.rows) or [0], np.int64)
    values = {
        "keys": keys,
        "rows": np.array([weights.rows.get(int(k), 0.0) for k in keys], np.float32),
        "bias": np.float32(weights.bias),
        "rate": np.float32(weights.rate),
    }
    names = sorted(reader.get_variable_to_shape_map())
    tensors = [values.get(name.split("/")[0]) for name in names]
    found = [reader.get_tensor(n) if t is None else t for n, t in zip(names, tensors, strict=True)]
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=found)
    golden = inputs(*[int(k) for k in keys[:4]], 1, rate=0.5)
    told = {
        "model": model,
        "version": version,
        "parent": {"model": parent[0], "version": parent[1]} if parent else None,
        "architecture": graph.name,
        "definition": "",
        "feature_set_version": 1,
        "inputs": [i | {"dtype": (dtypes or {}).get(i["name"], i["dtype"])} for i in INPUTS],
        "samples": {"from": 0, "to": 1, "seqs": {}, "count": 1000, "positives": 100},
        "metrics": dict(metrics or {"auc": 0.7, "logloss": 0.3, "calibration": 1.0, "count": 1000}),
        "golden": {
            "inputs": {k: v.tolist() for k, v in golden.items()},
            "scores": [float(s) for s in expected(weights, golden)],
        },
        "weights": weights_hash(
            {n: np.asarray(t) for n, t in zip(names, found, strict=True) if not isinstance(t, bytes)}
        ),
        "created_at": 0,
        "code": "test",
        **(manifest or {}),
    }
    extra = partial / "assets.extra"
    extra.mkdir(exist_ok=True)
    (extra / "manifest.json").write_text(json.dumps(told), encoding="utf-8")
    partial.rename(folder)
    return folder


def _graph(cache: Path, dtypes: Mapping[str, str]) -> Path:
    """The SavedModel of the graph, written once."""
    folder = cache / (",".join(f"{k}={v}" for k, v in sorted(dtypes.items())) or "plain")
    if folder.exists():
        return folder
    import tensorflow as tf  # noqa: PLC0415

    module = tf.Module()
    module.keys = tf.Variable([0], shape=[None], dtype=tf.int64, trainable=False, name="keys")
    module.rows = tf.Variable([0.0], shape=[None], name="rows")
    module.bias = tf.Variable(0.0, name="bias")
    module.rate = tf.Variable(0.0, name="rate")

    def serve(**columns: Any) -> dict[str, Any]:
        ids = tf.cast(columns["item_id"], tf.int64)
        at = tf.minimum(tf.searchsorted(module.keys, ids), tf.size(module.keys) - 1)
        row = tf.where(tf.equal(tf.gather(module.keys, at), ids), tf.gather(module.rows, at), 0.0)
        pooled = 0.0 * tf.cast(tf.reduce_sum(columns["recent"], axis=1), tf.float32)
        return {"score": tf.sigmoid(module.bias + row + module.rate * tf.cast(columns["rate"], tf.float32) + pooled)}

    specs = {i["name"]: tf.TensorSpec(i["shape"], dtypes.get(i["name"], i["dtype"]), name=i["name"]) for i in INPUTS}
    function = tf.function(serve).get_concrete_function(**specs)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": function})
    return folder
