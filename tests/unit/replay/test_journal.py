"""The state file: what it tells after an interruption at any byte."""

from pathlib import Path

import pytest
from headrace_stack.commands.terminal import CommandError
from headrace_stack.replay.journal import Answered, Journal

ANSWERS = [Answered("r1", 5, 2, "10"), Answered("r2", 5, 0, "0", degraded=True)]


def opened(path: Path, fingerprint: str = "f", *, fresh: bool = False, now_ms: int = 1) -> Journal:
    return Journal.open(path, fingerprint, now_ms=now_ms, before={"joined": 3}, fresh=fresh)


def played(path: Path) -> Journal:
    journal = opened(path)
    journal.answered(0, ANSWERS)
    journal.impressions_sent(range(2), 1)
    journal.clicks_sent([(0, 7)], 0)
    return journal


def test_interrupted_replay_goes_on_with_what_it_knew(tmp_path: Path) -> None:
    first = played(tmp_path / "deep" / "state")
    first.close()

    again = opened(tmp_path / "deep" / "state", now_ms=9)

    assert again.head == first.head
    assert again.head.before == {"joined": 3}
    assert again.answers == dict(enumerate(ANSWERS))
    assert (again.sent, again.clicked, again.rejected, again.done) == ({0, 1}, {(0, 7)}, 1, False)


def test_line_that_was_cut_off_is_as_if_not_written(tmp_path: Path) -> None:
    journal = played(tmp_path / "state")
    journal.close()
    content = (tmp_path / "state").read_bytes()
    ends = [n + 1 for n, byte in enumerate(content) if byte == ord("\n")]

    for size in range(ends[0], len(content)):
        (tmp_path / "state").write_bytes(content[:size])
        again = opened(tmp_path / "state")
        again.clicks_sent([(1, 8)], 0)
        again.close()
        read = Journal.read(tmp_path / "state")

        assert read is not None
        whole = sum(end <= size for end in ends)
        assert (bool(read.answers), bool(read.sent), (0, 7) in read.clicked) == (whole > 1, whole > 2, whole > 3)
        assert (1, 8) in read.clicked


def test_finished_or_forgotten_replay_begins_anew_with_other_event_ids(tmp_path: Path) -> None:
    first = played(tmp_path / "state")
    first.close()
    forgotten = opened(tmp_path / "state", fresh=True)
    forgotten.finish(5)
    forgotten.close()
    third = opened(tmp_path / "state", "another")

    assert len({first.head.run, forgotten.head.run, third.head.run}) == 3
    assert not third.answers


def test_unfinished_replay_of_another_log_is_not_overwritten(tmp_path: Path) -> None:
    played(tmp_path / "state").close()

    with pytest.raises(CommandError, match="--fresh"):
        opened(tmp_path / "state", "another")
    assert opened(tmp_path / "state").sent == {0, 1}


def test_two_replays_of_one_log_do_not_mix(tmp_path: Path) -> None:
    played(tmp_path / "state")

    with pytest.raises(CommandError, match="another replay"):
        opened(tmp_path / "state", fresh=True)


@pytest.mark.parametrize("content", [b"nonsense\n", b'{"run": 1}\n', b"\xff\n"])
def test_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state").write_bytes(content)

    with pytest.raises(CommandError, match="no state file"):
        opened(tmp_path / "state")
    assert (tmp_path / "state").read_bytes() == content
