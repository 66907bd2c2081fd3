"""The operator against a model that a reader can check at a glance, in any order of arrival."""

from itertools import pairwise

from headrace_core.contracts import Action, BehaviorEvent
from headrace_sample_joiner.joiner.effects import Counts
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.joiner.driver import HORIZON, Message, an_operator, content, feed, let_pass, restored
from tests.unit.joiner.naive import Ledger, outcome
from tests.unit.joiner.streams import streams

END = 3 * HORIZON


def closes(counts: Counts) -> bool:
    return (
        counts.impressions == counts.joined + counts.orphaned + counts.duplicate + counts.pending
        and counts.joined == counts.positive + counts.negative
    )


@given(streams(), st.data())
def test_rows_are_those_of_the_model_whatever_the_order(stream: list[Message], data: st.DataObject) -> None:
    operator, ledger = an_operator(), Ledger()

    for message in stream:
        ledger.take(feed(operator, message, logs_lag=data.draw(st.booleans())))
    ledger.take(let_pass(operator, END))

    assert {key: label for key, (label, _) in ledger.rows.items()} == outcome(stream)


@given(streams())
def test_accounting_closes_at_every_flush(stream: list[Message]) -> None:
    operator, ledger = an_operator(), Ledger()

    for message in stream:
        ledger.take(feed(operator, message))
        assert closes(ledger.counts), message
    ledger.take(let_pass(operator, END))

    shown = [m for m in stream if isinstance(m, BehaviorEvent) and m.action == Action.ACTION_IMPRESSION]
    assert closes(ledger.counts)
    assert ledger.counts.impressions == len(shown)
    assert ledger.counts.pending == 0
    assert ledger.counts.joined == len(ledger.rows)


@given(streams())
def test_time_that_jumps_does_what_time_that_creeps_does(stream: list[Message]) -> None:
    creeping, jumping = an_operator(), an_operator()
    by_steps, at_once = Ledger(), Ledger()
    by_steps.take(feed(creeping, *stream))
    at_once.take(feed(jumping, *stream))

    for at in range(0, 20 * 60_000, 5_000):
        by_steps.take(let_pass(creeping, at))
    by_steps.take(let_pass(creeping, END))
    at_once.take(let_pass(jumping, END))

    assert by_steps == at_once


@given(st.data())
def test_restored_copy_goes_on_as_the_original(data: st.DataObject) -> None:
    stream = data.draw(streams())
    saved = sorted(data.draw(st.sets(st.integers(0, len(stream)), min_size=1)))
    whole = data.draw(st.sampled_from([None, *saved]))
    original = an_operator()
    snapshot: bytes | None = None
    changes: list[bytes] = []
    for start, end in pairwise([0, *saved]):
        feed(original, *stream[start:end])
        if end == whole:
            snapshot, changes = original.snapshot(), []
        elif (change := original.changes()) is not None:
            changes.append(change)

    copy = restored(snapshot, changes)

    rest = stream[saved[-1] :]
    assert feed(copy, *rest) == feed(original, *rest)
    assert content(copy) == content(original)
    assert let_pass(copy, END) == let_pass(original, END)
