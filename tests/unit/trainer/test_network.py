"""The network learns, forgets nothing at a restart, and serves what it was trained to say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from headrace_core.definitions.models import Model, load_model
from headrace_core.learning.inputs import Columns, InputColumns
from headrace_core.learning.weights import weights_hash
from headrace_trainer.network.learner import Arrays, Floats, Learner, pin_threads
from headrace_trainer.network.serving import architecture_of, hash_of, padded, write_graph, write_variables

pin_threads(1)

SHIPPED = Path(__file__).resolve().parents[3] / "definitions" / "models"
KINDS = ("wide_and_deep", "dcn_v2", "linear")
CITIES = {"Shanghai": "2002", "Beijing": "2011"}
DEFINITION = """\
model: ctr
label: click
inputs:
  user_id: {{id: user_id}}
  item_id: {{id: item_id}}
  city: {{id: user.city}}
  recent: {{ids: "user.recent[].item_id", length: 3, table: item_id}}
  rate: {{number: item.rate, default: 0.02, transform: logit}}
  shown: {{number: item.shown, transform: log}}
  rank: {{number: item.rank, buckets: [0.5, 1.5]}}
  city_item: {{cross: [city, item_id]}}
architecture: {{kind: {kind}, embedding: 4, cross_layers: 2, hidden: [8]}}
training: {{ids: {{admission: 2, capacity: {capacity}}}}}
validation: {{}}
"""


def a_model(folder: Path, kind: str = "dcn_v2", capacity: int = 1000) -> Model:
    (folder / "model.schema.json").write_bytes((SHIPPED / "model.schema.json").read_bytes())
    file = folder / "ctr.yaml"
    file.write_text(DEFINITION.format(kind=kind, capacity=capacity), encoding="utf-8")
    return load_model(file)


def batches(model: Model, count: int, seed: int = 1, users: int = 20) -> Iterator[tuple[Columns, Floats]]:
    """Requests in which each city clicks its own item, half of the time."""
    random, columns = np.random.default_rng(seed), InputColumns(model.inputs)
    for _ in range(count):
        city = str(random.choice(list(CITIES)))
        user = {"city": city, "recent": [{"item_id": str(i)} for i in random.integers(0, 30, random.integers(0, 5))]}
        items: list[tuple[str, dict[str, Any]]] = [
            (str(i), {"rate": float(random.random()), "rank": int(random.integers(0, 3))})
            for i in random.choice(["2001", "2002", "2011", *map(str, range(30))], 32)
        ]
        made = columns.from_request(user, {}, str(random.integers(users)), "100", items)
        clicks = [random.random() < (0.5 if i == CITIES[city] else 0.05) for i, _ in items]
        yield made, np.array(clicks, np.float32)


def learned(model: Model, count: int, learner: Learner | None = None, seed: int = 1) -> Learner:
    learner = learner or Learner(model)
    for now, (columns, labels) in enumerate(batches(model, count, seed)):
        learner.learn(columns, labels, np.ones_like(labels), np.zeros_like(labels), now)
    return learner


def assert_equal(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_cities_tastes_are_told_apart(tmp_path: Path, kind: str) -> None:
    model = a_model(tmp_path, kind)
    learner = learned(model, 100)

    columns = InputColumns(model.inputs)
    for city, item in CITIES.items():
        scores = learner.score(
            columns.from_request({"city": city}, {}, "new", "100", [(i, {}) for i in ("2001", "2002", "2011")])
        )
        assert ("2001", "2002", "2011")[int(scores.argmax())] == item, (city, scores)


def test_same_batches_give_the_same_bits_also_through_a_restart(tmp_path: Path) -> None:
    model = a_model(tmp_path)
    whole = learned(model, 15, learned(model, 15), seed=2)

    restarted = Learner(model)
    restarted.restore(learned(model, 15).arrays())
    learned(model, 15, restarted, seed=2)

    assert_equal(whole.arrays(), restarted.arrays())


def test_step_changes_only_the_rows_of_its_batch(tmp_path: Path) -> None:
    model = a_model(tmp_path)
    learner = learned(model, 50)
    before = learner.arrays()
    ((columns, labels),) = batches(model, 1, seed=9)

    learner.learn(columns, labels, np.ones_like(labels), np.zeros_like(labels), 99)

    after = learner.arrays()
    ids = np.concatenate([columns[n].ravel() for n in ("user_id", "item_id", "city", "recent")])
    moved = np.flatnonzero((before["ids/embedding"] != after["ids/embedding"]).any(1))
    assert len(moved)
    reserved = 1 + 3 + 3
    assert set(after["ids/table_keys"][moved[moved >= reserved]].tolist()) <= set(ids.tolist())
    assert not after["ids/embedding"][0].any()  # the padding says nothing


def test_gradients_of_a_row_are_summed_over_its_samples(tmp_path: Path) -> None:
    model = a_model(tmp_path, "linear")
    ((columns, _),) = batches(model, 1)
    once = {n: np.concatenate([c[:1]] * 2) for n, c in columns.items()}
    single = {n: c[:1] for n, c in columns.items()}
    one, two = Learner(model), Learner(model)
    two_labels, two_weights, none = np.ones(2, np.float32), np.ones(2, np.float32), np.zeros(2, np.float32)

    one.learn(once, two_labels, two_weights, none, 0)
    two.learn(once, two_labels, two_weights * 0, none, 0)  # admits the ids
    two.learn(single, two_labels[:1], two_weights[:1] * 2, none[:1], 0)

    np.testing.assert_allclose(one.arrays()["ids/linear"], two.arrays()["ids/linear"], rtol=1e-6)


def test_weight_nothing_learns_nothing(tmp_path: Path) -> None:
    model = a_model(tmp_path)
    learner = learned(model, 20)
    before = learner.served()
    ((columns, labels),) = batches(model, 1)

    learner.learn(columns, labels, np.zeros_like(labels), np.zeros_like(labels), 99)

    assert_equal({n: a for n, a in before.items() if n.startswith("dense/")},
                 {n: a for n, a in learner.served().items() if n.startswith("dense/")})  # fmt: skip


def test_probability_is_learned_though_most_clicks_come_late(tmp_path: Path) -> None:
    model = a_model(tmp_path, "linear")
    ((columns, _),) = batches(model, 1)
    same = {n: np.repeat(c[:1], 256, 0) for n, c in columns.items()}
    random, p, share = np.random.default_rng(1), 0.5, np.float32(0.8)
    learner, one = Learner(model), np.ones(256, np.float32)

    for _ in range(200):
        clicked = random.random(256) < p
        is_late = clicked & (random.random(256) < share)
        learner.learn(same, (clicked & ~is_late).astype(np.float32), one, share * one, 0)
        late = {n: c[is_late] for n, c in same.items()}
        count = int(is_late.sum())
        learner.learn(late, one[:count], one[:count], 0 * one[:count], 0)

    assert learner.score(same)[0] == pytest.approx(p, abs=0.06)  # without the weight: p / (1 + share * p) = 0.36


def test_table_that_grew_past_its_first_size_keeps_what_it_learned(tmp_path: Path) -> None:
    model = a_model(tmp_path, capacity=100_000)
    learner = learned(model, 50)
    ((columns, _),) = batches(model, 1, seed=4)
    before = learner.score(columns)

    many = {n: np.repeat(c[:1], 3_000, 0) for n, c in columns.items()}
    many["user_id"] = np.repeat(np.arange(10_000, 11_500), 2)
    none = np.zeros(3_000, np.float32)
    learner.learn(many, none, none, none, 99)

    assert learner.rows()["ids"] > 1_024
    np.testing.assert_allclose(learner.score(columns), before, rtol=1e-6)


def as_tensorflow_serving_loads(folder: Path, columns: Columns) -> Floats:
    """A session that restores the variables and runs the init op."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        signature = meta.signature_def["serving_default"]
        feed = {signature.inputs[name].name: column for name, column in columns.items()}
        scores: Floats = session.run(signature.outputs["score"].name, feed)
        return scores


def in_eager_mode(folder: Path, columns: Columns) -> Floats:
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    scores: Floats = served(**{name: tf.constant(c) for name, c in columns.items()})["score"].numpy()
    return scores


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_artifact_gives_the_trainers_scores_however_it_is_loaded(tmp_path: Path, kind: str) -> None:
    model = a_model(tmp_path, kind)
    first = learned(model, 20)
    write_graph(model, padded(model, first.served()), tmp_path / "graph")
    learner = learned(model, 20, first, seed=2)
    variables = padded(model, learner.served())
    write_variables(tmp_path / "graph", variables, tmp_path / "model")
    ((known, _),) = batches(model, 1, seed=5, users=100)  # some ids are not known
    empty = InputColumns(model.inputs).from_request({}, {}, "", "100", [("2002", {}), ("", {})])
    columns = {name: np.concatenate([known[name], empty[name]]) for name in known}
    want = learner.score(columns)

    np.testing.assert_allclose(in_eager_mode(tmp_path / "model", columns), want, atol=1e-6)
    np.testing.assert_allclose(as_tensorflow_serving_loads(tmp_path / "model", columns), want, atol=1e-6)
    assert np.abs(in_eager_mode(tmp_path / "graph", columns) - want).max() > 1e-3


def test_hash_is_that_of_the_variables_in_the_artifact(tmp_path: Path) -> None:
    model = a_model(tmp_path)
    variables = padded(model, learned(model, 5).served())
    write_graph(model, variables, tmp_path / "graph")

    reader = tf.train.load_checkpoint(str(tmp_path / "graph" / "variables" / "variables"))
    stored = {
        n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map() if n != "_CHECKPOINTABLE_OBJECT_GRAPH"
    }

    assert weights_hash(stored) == hash_of(variables)


def test_architecture_stays_until_a_size_doubles(tmp_path: Path) -> None:
    model = a_model(tmp_path)
    learner = learned(model, 40)
    before = architecture_of(model, padded(model, learner.served()))

    learned(model, 1, learner)
    assert architecture_of(model, padded(model, learner.served())) == before

    other = a_model(tmp_path, "wide_and_deep")
    assert architecture_of(other, padded(other, learned(other, 40).served())) != before


def test_variables_of_another_architecture_are_refused(tmp_path: Path) -> None:
    model, other = a_model(tmp_path), a_model(tmp_path, "linear")
    write_graph(model, padded(model, learned(model, 2).served()), tmp_path / "graph")

    with pytest.raises(ValueError, match="has the variables"):
        write_variables(tmp_path / "graph", padded(other, learned(other, 2).served()), tmp_path / "model")
