"""Learning: a step whose cost does not grow with the tables.

Ids are made unique and placed in Python; the graph gathers the block of their rows, differentiates with respect to the block,
sums the gradients per row, and applies them sparsely: Adagrad (Duchi et al. 2011) for embeddings, FTRL-proximal (McMahan et al.
2013) for linear weights. Rows see the sum of their samples' gradients, not the mean.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from headrace_core.definitions.models import Model
from headrace_core.learning.inputs import Columns

from headrace_trainer.network.forward import Looked, dense_shapes, initial_dense, logit
from headrace_trainer.network.ids import IdTable, Ints, Placed, Policy, columns_to_ids, initial_rows
from headrace_trainer.network.layout import Bank, Layout

Floats = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]

_FIRST_ACCUMULATOR: Final = 0.1
_EPSILON: Final = 1e-7
_SCALE: Final = 0.05
#: Batches between two looks for rows to give back.
_EXPIRE_EVERY: Final = 1_000


def pin_threads(threads: int) -> None:
    """Fix how many threads compute, before anything was computed: sums in another order have other bits."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


class _Rows:
    """The rows of a bank: its id table and the variables that grow with it."""

    def __init__(self, bank: Bank, model: Model, *, embedded: bool) -> None:
        training = model.training
        self.bank, self._seed = bank, training.seed
        self.table = IdTable(bank.reserved, Policy(training.admission, training.expiry_ms, training.capacity))
        widths = {
            "linear": 1 + len(bank.lists),
            "linear_accumulator": 1 + len(bank.lists),
            "linear_z": 1 + len(bank.lists),
        }
        if embedded:
            widths |= {"embedding": model.architecture.embedding, "embedding_accumulator": model.architecture.embedding}
        self._widths = widths
        self.variables = {
            name: tf.Variable(self._first(name, np.arange(self.table.size)), shape=[None, width], dtype=tf.float32)
            for name, width in widths.items()
        }
        self._size = self.table.size

    def place(self, columns: Columns, lengths: tuple[int, ...], *, learn: bool, now: int) -> Placed:
        """Rows for the bank's columns, ids first, then list after list."""
        bank, n = self.bank, len(self.bank.columns)
        rows = len(next(iter(columns.values())))
        parts = [columns_to_ids([columns[c] for c in bank.columns], bank.missing[:n]).ravel()] if n else []
        shared = [np.tile(np.array(bank.shared[:n], np.int64), rows)] if n else []
        for name, row, length in zip(bank.lists, bank.shared[n:], lengths, strict=True):
            parts.append(columns[name].ravel())
            shared.append(np.full(rows * length, row, np.int64))
        if not parts:
            none = np.zeros(0, np.int64)
            return Placed(none, none, none, none)
        placed = self.table.place(np.concatenate(parts), np.concatenate(shared), learn=learn, now=now)
        self._grow()
        if len(placed.fresh):
            for name, variable in self.variables.items():
                variable.scatter_update(tf.IndexedSlices(self._first(name, placed.fresh_ids), placed.fresh))
        return placed

    def _grow(self) -> None:
        more, self._size = self.table.size - self._size, self.table.size
        if more:
            for name, variable in self.variables.items():
                variable.assign(tf.concat([variable, np.zeros((more, self._widths[name]), np.float32)], 0))

    def _first(self, name: str, ids: Ints) -> Floats:
        width = self._widths[name]
        if name == "embedding":
            rows = initial_rows(ids, width, self._seed, _SCALE)
            rows[ids == 0] = 0  # the padding
            return rows
        return np.full((len(ids), width), _FIRST_ACCUMULATOR if name.endswith("accumulator") else 0, np.float32)

    def arrays(self) -> Arrays:
        """Variables and table."""
        return {n: v.numpy() for n, v in self.variables.items()} | {
            f"table_{n}": a for n, a in self.table.arrays().items()
        }

    def restore(self, arrays: Arrays) -> None:
        """Take over what `arrays` gave."""
        for name, variable in self.variables.items():
            variable.assign(arrays[name])
        self.table.restore({n.removeprefix("table_"): a for n, a in arrays.items() if n.startswith("table_")})
        self._size = self.table.size


class Learner:
    """The weights of a model, and how they learn. The same batches give the same bits."""

    def __init__(self, model: Model) -> None:
        """First weights."""
        self.model, self.layout = model, Layout.of(model.inputs)
        self.batches = 0
        self._ids = _Rows(self.layout.ids, model, embedded=model.architecture.kind != "linear")
        self._crosses = _Rows(self.layout.crosses, model, embedded=False)
        first = initial_dense(dense_shapes(self.layout, model.architecture), model.training.seed)
        self._dense = {name: tf.Variable(value, name=name) for name, value in first.items()}
        self._accumulators = {n: tf.Variable(np.full_like(v, _FIRST_ACCUMULATOR)) for n, v in first.items()}
        ints, floats = tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.float32)
        numbers = tf.TensorSpec([None, len(self.layout.numbers)], tf.float32)
        present = tuple(tf.TensorSpec([None, n], tf.float32) for n in self.layout.lengths)
        shared = (ints, ints, ints, ints, numbers, present)
        self._step = tf.function(self._learn, input_signature=(*shared, floats, floats, floats))
        self._scores = tf.function(self._score, input_signature=shared)

    def learn(self, columns: Columns, labels: Floats, weights: Floats, late: Floats, now: int) -> Floats:
        """Learn a batch; the scores that it had before.

        A negative with score p counts (1 - p) / (1 - p + late · p) of its weight, see `headrace_trainer.stream.delay`.

        Args:
            columns: as InputColumns gives them, `[n]`.
            labels: `[n]`, 0 or 1.
            weights: `[n]`, how much each counts.
            late: `[n]`, the share of positives that are still negatives when they are first learned; 0 for a final label.
            now: greatest event time, ms since the epoch.
        """
        fed = self._feed(columns, learn=True, now=now)
        scores: Floats = self._step(*fed, labels, weights, late).numpy()
        self.batches += 1
        if self.batches % _EXPIRE_EVERY == 0:
            self._ids.table.expire(now)
            self._crosses.table.expire(now)
        return scores

    def score(self, columns: Columns) -> Floats:
        """Scores `[n]`; nothing is learned."""
        scores: Floats = self._scores(*self._feed(columns, learn=False, now=0)).numpy()
        return scores

    def _feed(self, columns: Columns, *, learn: bool, now: int) -> tuple[Any, ...]:
        layout = self.layout
        ids = self._ids.place(columns, layout.lengths, learn=learn, now=now)
        crosses = self._crosses.place(columns, (), learn=learn, now=now)
        rows = len(next(iter(columns.values())))
        numbers = (
            np.stack([columns[n.name] for n in layout.numbers], 1)
            if layout.numbers
            else np.zeros((rows, 0), np.float32)
        )
        present = tuple((columns[n] != 0).astype(np.float32) for n in layout.ids.lists)
        return ids.rows, ids.at, crosses.rows, crosses.at, numbers, present

    def _learn(  # noqa: PLR0913, PLR0917  # a signature of tensors
        self,
        ids: Any,
        index: Any,
        crosses: Any,
        cross_index: Any,
        numbers: Any,
        present: Any,
        labels: Any,
        weights: Any,
        late: Any,
    ) -> Any:
        training = self.model.training
        blocks, cross_block = self._gather(ids), tf.gather(self._crosses.variables["linear"], crosses)
        dense = list(self._dense.values())
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*blocks.values(), cross_block, *dense])
            logits = self._logit(blocks, index, cross_block, cross_index, numbers, present)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
            scores = tf.stop_gradient(tf.sigmoid(logits))
            real = (1 - scores) / (1 - scores + late * scores)
            loss = tf.reduce_sum(losses * weights * tf.where(labels > 0, 1.0, real))
        sources = {**blocks, "cross": cross_block}
        gradients = tape.gradient(loss, [*sources.values(), *dense], unconnected_gradients=tf.UnconnectedGradients.ZERO)
        by_source = dict(zip(sources, map(_summed, gradients[: len(sources)], sources.values()), strict=True))
        if "embedding" in by_source:
            v = self._ids.variables
            tf.raw_ops.ResourceSparseApplyAdagradV2(
                var=v["embedding"].handle, accum=v["embedding_accumulator"].handle, lr=training.embedding_rate,
                epsilon=_EPSILON, grad=by_source["embedding"], indices=ids,
            )  # fmt: skip
        for rows, gradient, indices in (
            (self._ids, by_source["linear"], ids),
            (self._crosses, by_source["cross"], crosses),
        ):
            v = rows.variables
            tf.raw_ops.ResourceSparseApplyFtrlV2(
                var=v["linear"].handle, accum=v["linear_accumulator"].handle, linear=v["linear_z"].handle, grad=gradient,
                indices=indices, lr=training.linear_rate, l1=training.l1, l2=training.l2, l2_shrinkage=0.0, lr_power=-0.5,
            )  # fmt: skip
        for name, gradient in zip(self._dense, gradients[len(sources) :], strict=True):
            tf.raw_ops.ResourceApplyAdagradV2(
                var=self._dense[name].handle, accum=self._accumulators[name].handle, lr=training.dense_rate,
                epsilon=_EPSILON, grad=gradient,
            )  # fmt: skip
        return scores

    def _score(self, ids: Any, index: Any, crosses: Any, cross_index: Any, numbers: Any, present: Any) -> Any:  # noqa: PLR0913, PLR0917
        cross_block = tf.gather(self._crosses.variables["linear"], crosses)
        return tf.sigmoid(self._logit(self._gather(ids), index, cross_block, cross_index, numbers, present))

    def _gather(self, ids: Any) -> dict[str, Any]:
        return {n: tf.gather(v, ids) for n, v in self._ids.variables.items() if n in {"embedding", "linear"}}

    def _logit(  # noqa: PLR0913, PLR0917
        self, blocks: dict[str, Any], index: Any, cross_block: Any, cross_index: Any, numbers: Any, present: Any
    ) -> Any:
        layout = self.layout
        n = tf.shape(numbers)[0]
        columns, crosses = len(layout.ids.columns), len(layout.crosses.columns)
        places = tf.split(index, [n * columns, *(n * length for length in layout.lengths)])
        embedding, linear = blocks.get("embedding"), blocks["linear"]
        looked = Looked(
            embedded=None if embedding is None else tf.reshape(tf.gather(embedding, places[0]), [n, columns, -1]),
            embedded_lists=[]
            if embedding is None
            else [
                tf.reshape(tf.gather(embedding, p), [n, k, -1]) for p, k in zip(places[1:], layout.lengths, strict=True)
            ],
            linear=tf.reshape(tf.gather(linear[:, 0], places[0]), [n, columns]),
            linear_lists=[
                tf.reshape(tf.gather(linear[:, 1 + j], p), [n, k])
                for j, (p, k) in enumerate(zip(places[1:], layout.lengths, strict=True))
            ],
            linear_crosses=tf.reshape(tf.gather(cross_block[:, 0], cross_index), [n, crosses]),
            present=list(present),
            numbers=numbers,
        )
        return logit(self._dense, looked, layout, self.model.architecture)

    def rows(self) -> dict[str, int]:
        """How many ids have a row of their own, by bank."""
        return {"ids": len(self._ids.table), "crosses": len(self._crosses.table)}

    def arrays(self) -> Arrays:
        """Weights, slots and tables, to be restored bit for bit."""
        return {
            **{f"ids/{n}": a for n, a in self._ids.arrays().items()},
            **{f"crosses/{n}": a for n, a in self._crosses.arrays().items()},
            **{f"dense/{n}": v.numpy() for n, v in self._dense.items()},
            **{f"dense_accumulator/{n}": v.numpy() for n, v in self._accumulators.items()},
            "batches": np.array([self.batches], np.int64),
        }

    def restore(self, arrays: Arrays) -> None:
        """Take over what `arrays` gave."""

        def part(prefix: str) -> Arrays:
            return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}

        self._ids.restore(part("ids/"))
        self._crosses.restore(part("crosses/"))
        for name, variable in self._dense.items():
            variable.assign(arrays[f"dense/{name}"])
            self._accumulators[name].assign(arrays[f"dense_accumulator/{name}"])
        self.batches = int(arrays["batches"][0])

    def served(self) -> Arrays:
        """What serves: the network, and of each bank the ids ascending with their rows after the reserved ones."""
        found: Arrays = {f"dense/{n}": v.numpy() for n, v in self._dense.items()}
        for bank, rows in (("ids", self._ids), ("crosses", self._crosses)):
            keys, places = rows.table.live()
            found[f"{bank}/keys"] = keys
            taken = np.concatenate([np.arange(rows.bank.reserved), places])
            for name, variable in rows.variables.items():
                if name in {"embedding", "linear"}:
                    found[f"{bank}/{name}"] = tf.gather(variable, taken).numpy()
        return found


def _summed(gradient: Any, block: Any) -> Any:
    """The gradient of a block of rows; a row's parts are summed."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, tf.shape(block)[0])
    return gradient
