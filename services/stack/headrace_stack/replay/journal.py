"""What was sent so far, so that a replay that was interrupted goes on where it was.

Lines of JSON, appended. The answers of a chunk of slates are written before its events are sent: a repeated sending has the same
event ids, request ids and times, so whatever arrived before arrives once. A line that a crash cut off is as if it had not been
written. It survives the end of the process at any point; it is not synced to disk, so a machine that loses power may make a replay
rank some slates again.
"""

import fcntl
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec

from headrace_stack.commands.terminal import CommandError


class Head(msgspec.Struct):
    """First line.

    Attributes:
        run: makes event ids unique among replays of the same log.
        fingerprint: of the log.
        began_ms: when the replay began.
        before: sums of the accounting at that time, None if there was no database to ask.
    """

    run: str
    fingerprint: str
    began_ms: int
    before: dict[str, int] | None = None


class Answered(msgspec.Struct, array_like=True, gc=False):
    """How a slate was answered.

    Attributes:
        request_id: of the answer; empty when the gateway refused the slate for good.
        time_ms: event time of its impressions.
        version: of the model that answered.
        hits: a character per impression: 1 where the answer has the logged item on the logged position, else 0.
        degraded: whether the answer lacked something.
    """

    request_id: str
    time_ms: int
    version: int
    hits: str
    degraded: bool = False


class _Chunk(msgspec.Struct, array_like=True, tag="chunk"):
    first: int
    answers: list[Answered]


class _Sent(msgspec.Struct, array_like=True, tag="sent"):
    first: int
    end: int
    rejected: int


class _Clicked(msgspec.Struct, array_like=True, tag="clicked"):
    slates: list[tuple[int, int]]
    rejected: int


class _Done(msgspec.Struct, array_like=True, tag="done"):
    at_ms: int


_LINE: msgspec.json.Decoder[_Chunk | _Sent | _Clicked | _Done] = msgspec.json.Decoder(_Chunk | _Sent | _Clicked | _Done)
_ENCODER = msgspec.json.Encoder()


def _locked(path: Path) -> int:
    """The file, for one process alone.

    Raises:
        CommandError: another replay has it.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise CommandError(f"another replay of this log is at work ({path}): --state names another file") from None
    return file


@dataclass(slots=True)
class Journal:
    """The state file of one replay.

    Attributes:
        path: of the file.
        head: its first line.
        answers: by the number of the slate in the log.
        sent: slates whose impressions were acknowledged.
        clicked: (slate, row) of the clicks that were acknowledged.
        rejected: events that the gateway refused.
        done: whether all was sent.
        file: its descriptor, -1 when closed.
    """

    path: Path
    head: Head
    answers: dict[int, Answered] = field(default_factory=dict)
    sent: set[int] = field(default_factory=set)
    clicked: set[tuple[int, int]] = field(default_factory=set)
    rejected: int = 0
    done: bool = False
    file: int = -1

    @classmethod
    def open(cls, path: Path, fingerprint: str, *, now_ms: int, before: Mapping[str, int] | None, fresh: bool) -> Self:
        """Go on with an unfinished replay of the log, or begin one.

        Args:
            path: of the file; what a finished replay left there is replaced.
            fingerprint: of the log.
            now_ms: the clock.
            before: sums of the accounting, noted when a replay begins.
            fresh: begin anew in any case.

        Raises:
            CommandError: the file is of another log, or is none of ours.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(path)
        try:
            journal = None if fresh else cls.read(path)
            if journal is None or journal.done:
                head = Head(secrets.token_hex(6), fingerprint, now_ms, None if before is None else dict(before))
                journal = cls(path, head, file=file)
                os.ftruncate(file, 0)
                journal._write(head)
            else:
                journal._refuse_other(fingerprint)
                journal.file = file
                os.ftruncate(file, path.read_bytes().rfind(b"\n") + 1)  # a line that was cut off
        except BaseException:
            os.close(file)
            raise
        return journal

    def _refuse_other(self, fingerprint: str) -> None:
        if self.head.fingerprint != fingerprint:
            raise CommandError(
                f"{self.path} holds an unfinished replay of another log, or of this one with other options: go on with "
                "those, or add --fresh to forget it"
            )

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What a state file holds, None if there is none; a last line that is being written is left out.

        Raises:
            CommandError: it is damaged, or none of ours.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        first, *lines = content.split(b"\n")
        if not lines:
            return None  # cut off before anything was sent
        try:
            journal = cls(path, msgspec.json.decode(first, type=Head))
            for line in lines[:-1]:
                journal._take(_LINE.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CommandError(
                f"{path} is no state file of a replay, or damaged ({error}): --state names another"
            ) from None
        return journal

    def _take(self, line: "_Chunk | _Sent | _Clicked | _Done") -> None:
        match line:
            case _Chunk(first, answers):
                self.answers.update(enumerate(answers, first))
            case _Sent(first, end, rejected):
                self.sent.update(range(first, end))
                self.rejected += rejected
            case _Clicked(slates, rejected):
                self.clicked.update(slates)
                self.rejected += rejected
            case _Done():
                self.done = True

    def _write(self, line: Any) -> None:
        data = memoryview(_ENCODER.encode(line) + b"\n")
        while data:
            data = data[os.write(self.file, data) :]

    def answered(self, first: int, answers: Sequence[Answered]) -> None:
        """Note the answers of a chunk, before its events are sent."""
        self._note(_Chunk(first, list(answers)))

    def impressions_sent(self, slates: range, rejected: int) -> None:
        """Note that the impressions of these slates are acknowledged."""
        self._note(_Sent(slates.start, slates.stop, rejected))

    def clicks_sent(self, clicks: Iterable[tuple[int, int]], rejected: int) -> None:
        """Note clicks, as (slate, row), that are acknowledged."""
        self._note(_Clicked(list(clicks), rejected))

    def finish(self, now_ms: int) -> None:
        """Note that all was sent."""
        self._note(_Done(now_ms))

    def _note(self, line: "_Chunk | _Sent | _Clicked | _Done") -> None:
        self._write(line)
        self._take(line)

    def close(self) -> None:
        """Close the file."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1
