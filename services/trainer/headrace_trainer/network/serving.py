"""The part of a model that serves, as a SavedModel whose every state is a plain variable.

Ids are looked up in a sorted variable by binary search: a session that restores variables and runs the init op, as TensorFlow
Serving does, has everything (docs/adr, "ids are looked up in a sorted variable"). Sizes are powers of two, so that the graph seldom
changes; rows that are not used are zero.
"""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
from headrace_core.definitions.models import IdsInput, Model, NumberInput
from headrace_core.learning.weights import weights_hash

from headrace_trainer.network.forward import Looked, dense_shapes, logit
from headrace_trainer.network.layout import Bank, Layout
from headrace_trainer.network.learner import Arrays

#: Raise it when the serving graph changes in this code.
_REVISION: Final = 1
_SMALLEST: Final = 64
_NO_KEY: Final = np.iinfo(np.int64).max
_SUFFIX: Final = "/.ATTRIBUTES/VARIABLE_VALUE"
_OBJECT_GRAPH: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"


def padded(model: Model, served: Arrays) -> Arrays:
    """What `Learner.served` gave, at sizes that are powers of two."""
    layout, made = Layout.of(model.inputs), {n: a for n, a in served.items() if n.startswith("dense/")}
    for name, bank in (("ids", layout.ids), ("crosses", layout.crosses)):
        keys = served[f"{name}/keys"]
        size = max(_SMALLEST, 1 << max(0, len(keys) - 1).bit_length())
        made[f"{name}/keys"] = np.concatenate([keys, np.full(size - len(keys), _NO_KEY, np.int64)])
        for part in ("embedding", "linear"):
            if (rows := served.get(f"{name}/{part}")) is not None:
                more = bank.reserved + size - len(rows)
                made[f"{name}/{part}"] = np.concatenate([rows, np.zeros((more, rows.shape[1]), np.float32)])
    return made


def architecture_of(model: Model, variables: Arrays) -> str:
    """Hash of what the graph depends on: inputs, network, sizes, and the code that makes it."""
    meaning = {
        "inputs": [{type(i).__name__: asdict(i)} for i in model.inputs],
        "architecture": asdict(model.architecture),
        "shapes": {n: list(a.shape) for n, a in sorted(variables.items())},
        "tensorflow": tf.__version__,
        "revision": _REVISION,
    }
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:32]


def hash_of(variables: Arrays) -> str:
    """Hash of the weights, as the manifest tells it."""
    return weights_hash({_key(n): a for n, a in variables.items()})


def write_graph(model: Model, variables: Arrays, folder: Path) -> None:
    """A whole SavedModel."""
    served = _Served(model, variables)
    tf.saved_model.save(served, str(folder), signatures={"serving_default": served.serve})
    (folder / "fingerprint.pb").unlink(missing_ok=True)  # tells of variables that later exports replace


def write_variables(graph: Path, variables: Arrays, folder: Path) -> None:
    """A SavedModel with the graph of another one that has the same architecture.

    The file of variables is TensorFlow's own format, with the names that the graph restores by.
    """
    (folder / "variables").mkdir(parents=True)
    shutil.copyfile(graph / "saved_model.pb", folder / "saved_model.pb")
    tensors: dict[str, Any] = {_key(n): a for n, a in variables.items()}
    reader = tf.train.load_checkpoint(str(graph / "variables" / "variables"))
    tensors[_OBJECT_GRAPH] = reader.get_tensor(_OBJECT_GRAPH)
    if (wanted := set(reader.get_variable_to_shape_map())) != set(tensors):
        raise ValueError(f"{graph} has the variables {sorted(wanted)}, not {sorted(tensors)}")
    names = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(folder / "variables" / "variables"),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(tensors[n]) for n in names],
    )


def _key(name: str) -> str:
    return name + _SUFFIX


class _Bank(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    def __init__(self, bank: Bank, arrays: Arrays) -> None:
        super().__init__()
        self._bank = bank
        self.keys = tf.Variable(arrays["keys"], name="keys", trainable=False)
        for part in ("embedding", "linear"):
            if part in arrays:
                setattr(self, part, tf.Variable(arrays[part], name=part))

    def rows(self, inputs: dict[str, Any], n: Any) -> list[Any]:
        """Rows of the columns side by side `[n, columns]`, and of each list `[n, length]`."""
        bank = self._bank
        parts = [tf.stack([inputs[c] for c in bank.columns], 1)] if bank.columns else [tf.zeros([n, 0], tf.int64)]
        parts += [inputs[c] for c in bank.lists]
        flat = tf.concat([tf.reshape(p, [-1]) for p in parts], 0)
        unique, index = tf.unique(flat)
        last = tf.cast(tf.shape(self.keys)[0] - 1, tf.int32)
        place = tf.minimum(tf.searchsorted(self.keys, unique), last)
        own = tf.gather(self.keys, place) == unique
        found = tf.gather(tf.where(own, bank.reserved + place, -1), index)
        several = len(bank.columns)
        shared = [tf.constant(bank.shared[:several], tf.int32), *bank.shared[several:]]
        missing = [tf.constant(bank.missing[:several], tf.int32), *bank.missing[several:]]
        rows = []
        for part, at, s, m in zip(parts, _split(found, parts), shared, missing, strict=True):
            rows.append(tf.where(part == 0, m, tf.where(at < 0, s, at)))
        return rows


def _split(flat: Any, parts: list[Any]) -> list[Any]:
    pieces = tf.split(flat, [tf.size(p) for p in parts])
    return [tf.reshape(piece, tf.shape(p)) for piece, p in zip(pieces, parts, strict=True)]


class _Served(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    def __init__(self, model: Model, variables: Arrays) -> None:
        super().__init__()
        self._model, self._layout = model, Layout.of(model.inputs)

        def part(prefix: str) -> Arrays:
            return {n.removeprefix(prefix): a for n, a in variables.items() if n.startswith(prefix)}

        self.ids, self.crosses = _Bank(self._layout.ids, part("ids/")), _Bank(self._layout.crosses, part("crosses/"))
        shapes = dense_shapes(self._layout, model.architecture)
        self.dense = {name: tf.Variable(variables[f"dense/{name}"], name=name) for name in shapes}
        specs = [tf.TensorSpec(_shape(i), _dtype(i), name=i.name) for i in model.inputs]
        self.serve = tf.function(self._score, input_signature=specs)

    def _score(self, *columns: Any) -> dict[str, Any]:
        layout, inputs = self._layout, dict(zip((i.name for i in self._model.inputs), columns, strict=True))
        n = tf.shape(columns[0])[0]
        rows, crosses = self.ids.rows(inputs, n), self.crosses.rows(inputs, n)[0]
        embedding, linear = getattr(self.ids, "embedding", None), self.ids.linear
        looked = Looked(
            embedded=None if embedding is None else tf.gather(embedding, rows[0]),
            embedded_lists=[] if embedding is None else [tf.gather(embedding, r) for r in rows[1:]],
            linear=tf.gather(linear[:, 0], rows[0]),
            linear_lists=[tf.gather(linear[:, 1 + j], r) for j, r in enumerate(rows[1:])],
            linear_crosses=tf.gather(self.crosses.linear[:, 0], crosses),
            present=[tf.cast(inputs[name] != 0, tf.float32) for name in layout.ids.lists],
            numbers=tf.stack([inputs[i.name] for i in layout.numbers], 1) if layout.numbers else tf.zeros([n, 0]),
        )
        return {"score": tf.sigmoid(logit(self.dense, looked, layout, self._model.architecture))}


def _shape(told: Any) -> list[int | None]:
    return [None, told.length] if isinstance(told, IdsInput) else [None]


def _dtype(told: Any) -> Any:
    return tf.float32 if isinstance(told, NumberInput) else tf.int64
