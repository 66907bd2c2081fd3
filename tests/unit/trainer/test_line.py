"""A line learns what the change stream tells: firsts, corrections, nothing that is held out, nothing twice."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from headrace_core.contracts import Operation, Sample, SampleChange
from headrace_core.definitions.models import Model, load_model
from headrace_core.learning.inputs import InputColumns, held_out
from headrace_core.runtime.incarnation import Incarnations, Rewind
from headrace_trainer.export import Learned
from headrace_trainer.network.learner import Learner, pin_threads
from headrace_trainer.store.states import State
from headrace_trainer.stream.line import Line, Outcome
from headrace_trainer.stream.plan import OffsetRange, PlannedBatch

from load_tests.streams.world import uuid7

pin_threads(1)

SHIPPED = Path(__file__).resolve().parents[3] / "definitions" / "models" / "ctr.yaml"
HELD = next(f"r{n}" for n in range(1_000) if held_out(f"r{n}", 20))
FREE = [f"r{n}" for n in range(1_000) if not held_out(f"r{n}", 20)]


@dataclass(frozen=True)
class Record:
    """A record as aiokafka has it."""

    offset: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    key: bytes | None = b"k"
    timestamp: int = 0


def a_change(
    request_id: str, label: int = 0, previous: int | None = None, features: Any = None, time: int = 1_000
) -> SampleChange:
    told = {"user": {"city": "Shanghai"}, "context": {}, "item": {}} if features is None else features
    return SampleChange(
        operation=Operation.OPERATION_INSERT if previous is None else Operation.OPERATION_CORRECT,
        sample=Sample(
            request_id=request_id, item_id="2002", user_id="4", page_id="100", event_time=time, label=label,
            features=told if isinstance(told, bytes) else json.dumps(told).encode(), feature_set_version=3,
        ),
        previous_label=previous or 0,
        change_time=2_000,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    shipped = load_model(SHIPPED)
    return replace(shipped, training=replace(shipped.training, admission=1))


@pytest.fixture
def line(model: Model) -> Line:
    learned = Learned(seqs={0: (1, 10)}, count=100, positives=10).as_json()
    return Line(model, 1, State({"learned": learned, "metrics": {"auc": 0.7}}, Learner(model).arrays()))


def learn(line: Line, *changes: SampleChange | bytes, seq: int | None = None) -> Outcome:
    """The next batch, from source 0."""
    first = line.learned.seqs[0][1] + 1 if seq is None else seq
    records = [
        Record(n, c if isinstance(c, bytes) else c.SerializeToString(),
               [("incarnation", b"1"), ("source", b"0"), ("seq", b"%d" % (first + n))])
        for n, c in enumerate(changes)
    ]  # fmt: skip
    return line.learn(PlannedBatch(line.batch + 1, (OffsetRange(0, 0, len(records)),)), records)


def a_request(time: int) -> str:
    """An id of that time whose request is learned."""
    random = Random(1)
    while held_out(request_id := uuid7(time, random), 20):
        pass
    return request_id


def score(line: Line) -> float:
    columns = InputColumns(line.model.inputs).from_samples([a_change("x").sample])
    return float(line.learner.score(columns)[0])


def test_click_that_comes_late_raises_the_score_and_its_cancellation_lowers_it(line: Line) -> None:
    learn(line, *(a_change(r) for r in FREE[:20]))
    before = score(line)

    outcome = learn(line, *(a_change(r, label=1, previous=0) for r in FREE[:20]))
    raised = score(line)
    learn(line, *(a_change(r, label=0, previous=1) for r in FREE[:20]))

    assert (outcome.inserted, outcome.corrected) == (0, 20)
    assert raised > before
    assert score(line) < raised
    assert (line.learned.count, line.learned.positives) == (120, 10)


def test_correction_of_another_label_is_no_news(line: Line) -> None:
    outcome = learn(line, a_change(FREE[0], label=1 | 32, previous=1), a_change(FREE[1], label=4, previous=0))

    assert (outcome.inserted, outcome.corrected, line.fresh) == (0, 0, 0)
    assert line.learned.seqs == {0: (1, 12)}


def test_held_out_request_is_never_learned(line: Line) -> None:
    before = line.learner.arrays()

    outcome = learn(line, a_change(HELD, label=1), a_change(HELD, label=0, previous=1))

    assert outcome.inserted == outcome.corrected == 0
    for name, array in line.learner.arrays().items():
        np.testing.assert_array_equal(array, before[name])


def test_what_the_base_has_learned_is_skipped(line: Line) -> None:
    outcome = learn(line, *(a_change(r) for r in FREE[:5]), seq=8)

    assert outcome.inserted == 2
    assert line.learned.seqs == {0: (1, 12)}


def test_unreadable_records_are_set_aside_and_the_rest_is_learned(line: Line) -> None:
    outcome = learn(line, b"\xff\xff", a_change(FREE[0]), a_change(FREE[1], features=b"[1]"), a_change(FREE[2]))

    assert outcome.inserted == 2
    assert [why.split(":")[0] for _, why in outcome.rejected] == ["no SampleChange", "features are no JSON objects"]


def test_metrics_are_of_scores_before_learning(line: Line) -> None:
    assert line.metrics() == {"auc": 0.7}  # the base's, while nothing was scored
    learn(line, a_change(FREE[0], label=1, previous=0))  # gives the ids their rows; a correction is not in the figures
    untouched = score(line)

    learn(line, *(a_change(r) for r in FREE[:10]), a_change(FREE[10], label=1, previous=0))

    metrics = line.metrics()
    assert (metrics["count"], metrics["positives"], metrics["count_60m"]) == (10, 0, 10)
    assert metrics["logloss"] == pytest.approx(-np.log(1 - untouched), rel=1e-4)


def test_late_clicks_make_negatives_count_less(line: Line) -> None:
    for n in range(40):
        learn(line, *(a_change(r, label=int(n % 2 == 0)) for r in FREE[:10]))
        learn(line, *(a_change(r, label=1, previous=0) for r in FREE[20:25]))

    delay = line.state().header["delay"]
    assert delay["late"] == pytest.approx(200, rel=0.01)
    assert delay["early"] == pytest.approx(200, rel=0.01)


def test_positive_waits_until_a_negative_tells_that_its_window_is_over(line: Line) -> None:
    assert learn(line, a_change(FREE[0], label=1, time=500), a_change(FREE[1], label=1, time=900)).inserted == 0

    first = learn(line, a_change(FREE[2], time=600))
    assert first.inserted == 2
    assert line.learned.positives == 11
    assert line.learned.settled == {0: 600}

    assert learn(line, a_change(FREE[3], time=900)).inserted == 2
    assert line.learned.positives == 12


def test_held_out_negative_ends_windows_too(line: Line) -> None:
    learn(line, a_change(FREE[0], label=1, time=500))

    assert learn(line, a_change(HELD, time=600)).inserted == 1


def test_positive_that_is_cancelled_while_it_waits_is_learned_once_as_a_negative(line: Line) -> None:
    learn(line, a_change(FREE[0], label=1, time=500), a_change(FREE[0], label=0, previous=1, time=500))

    outcome = learn(line, a_change(FREE[1], time=600))

    assert (outcome.inserted, outcome.corrected) == (2, 0)
    assert line.learned.positives == 10


def test_what_waits_survives_a_restart(line: Line, model: Model) -> None:
    learn(line, a_change(FREE[0], label=1, time=500), a_change(FREE[1], time=100))

    other = Line.restored(model, line.state())

    assert learn(other, a_change(FREE[2], time=600)).inserted == 2
    assert other.learned.positives == 11


def test_base_of_older_requests_is_gone_on_from_without_learning_any_twice(model: Model) -> None:
    until = 1_700_000_000_000
    learned = Learned(seqs={0: (1, 0)}, until=until, seen={0: (1, 3)}).as_json()
    line = Line(model, 1, State({"learned": learned, "metrics": {}}, Learner(model).arrays()))
    old, new = a_request(until - 1), a_request(until)

    outcome = learn(
        line, a_change(old), a_change(new), a_change(old, label=1, previous=0), a_change(old, label=0, previous=1)
    )

    assert (outcome.inserted, outcome.corrected) == (1, 1)  # the new request, and what came after the base's scan


def test_line_that_learned_what_a_restore_took_back_is_known_by_it(line: Line) -> None:
    history = Incarnations(2, {0: [Rewind(2, 12)]})

    learn(line, a_change(a_request(1)))
    before = line.know(history)
    learn(line, a_change(a_request(2)))

    assert before
    assert line.learned.seqs == {0: (1, 11)}  # seq 12 is void, and was passed over
    assert line.know(history)
    line.know(Incarnations())
    learn(line, a_change(a_request(2)))
    assert not line.know(history)


def test_restored_line_goes_on_bit_for_bit(line: Line, model: Model) -> None:
    learn(line, *(a_change(r, label=n % 2) for n, r in enumerate(FREE[:30])))
    other = Line.restored(model, line.state())

    for one in (line, other):
        learn(one, *(a_change(r, label=1, previous=0) for r in FREE[:10]), *(a_change(r) for r in FREE[30:50]))

    assert other.state().header == line.state().header
    for name, array in line.state().arrays.items():
        assert other.state().arrays[name].tobytes() == array.tobytes(), name


def test_scores_before_learning_are_kept_of_firsts_alone(line: Line) -> None:
    learn(line, a_change(FREE[0]))
    untouched = score(line)
    learn(line, a_change(FREE[1], time=2_000), a_change(FREE[0], label=1, previous=0), a_change(HELD, time=3_000))

    kept = line.recent.kept
    assert kept.requests.tolist() == [FREE[0].encode(), FREE[1].encode()]
    assert kept.times.tolist() == [1_000, 2_000]
    assert kept.scores[1] == pytest.approx(untouched, rel=1e-5)
    assert score(line) != pytest.approx(untouched, rel=1e-5)


def test_kept_scores_outlive_a_restart(line: Line) -> None:
    learn(line, *(a_change(r) for r in FREE[:3]))

    again = Line.restored(line.model, line.state())

    np.testing.assert_array_equal(again.recent.kept.scores, line.recent.kept.scores)
