from headrace_core.runtime.dedupe import Dedupe
from hypothesis import given
from hypothesis import strategies as st

MINUTE = 60_000
WINDOW = 10 * MINUTE


def test_repeated_id_is_seen_within_the_window() -> None:
    dedupe = Dedupe(WINDOW)

    assert not dedupe.seen("e1", 0)
    assert dedupe.seen("e1", WINDOW)
    assert not dedupe.seen("e2", WINDOW)


def test_id_is_forgotten_after_the_window() -> None:
    dedupe = Dedupe(WINDOW)
    dedupe.seen("e1", 0)

    dedupe.seen("other", WINDOW + 2 * MINUTE)

    assert not dedupe.seen("e1", WINDOW + 2 * MINUTE)


def test_window_of_nothing_remembers_nothing() -> None:
    dedupe = Dedupe(0)

    assert not dedupe.seen("e1", 0)
    assert not dedupe.seen("e1", 0)


def test_nothing_new_is_no_change() -> None:
    dedupe = Dedupe(WINDOW)
    dedupe.seen("e1", 0)
    dedupe.changes()

    dedupe.seen("e1", 1)

    assert dedupe.changes() is None


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 30 * MINUTE), st.sampled_from(["", "c", "s"]))))
def test_restored_copy_answers_as_the_original(steps: list[tuple[str, int, str]]) -> None:
    original, snapshot, changes = Dedupe(WINDOW), None, []
    for name, now, save in sorted(steps, key=lambda s: s[1]):
        original.seen(name, now)
        if save == "c" and (change := original.changes()) is not None:
            changes.append(change)
        elif save == "s":
            snapshot, changes = original.snapshot(), []
    if (change := original.changes()) is not None:
        changes.append(change)
    end = max((s[1] for s in steps), default=0)

    copy = Dedupe(WINDOW)
    copy.restore(snapshot, changes)

    assert [copy.seen(n, end) for n in "abcdefgh"] == [original.seen(n, end) for n in "abcdefgh"]
