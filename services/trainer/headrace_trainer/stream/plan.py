"""The batch plan: which offsets make which batch, written down before the batch is learned.

After a crash the batches since the checkpoint are made of the same records again, so the weights are the same bit for bit.
"""

import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from headrace_trainer.store.states import sync_folder

_ENTRIES: Final = 50_000


class OffsetRange(NamedTuple):
    """Records of a partition: first offset, and the one after the last."""

    partition: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """One batch.

    Attributes:
        number: 1, 2, … since the base.
        ranges: what it is made of, in this order.
    """

    number: int
    ranges: tuple[OffsetRange, ...]


class BatchPlan:
    """Append-only files in a folder; a line each batch, with a checksum. What was half written at a crash is cut off."""

    def __init__(self, folder: Path) -> None:
        """Open the folder; nothing is written yet."""
        self._folder = folder
        self._file: BinaryIO | None = None
        self._entries = 0

    def after(self, number: int) -> list[PlannedBatch]:
        """Planned batches with a higher number, in order.

        Raises:
            ValueError: there is a gap.
        """
        found = [b for file in self._files() for b in _read(file) if b.number > number]
        if [b.number for b in found] != list(range(number + 1, number + 1 + len(found))):
            raise ValueError(f"{self._folder}: batches after {number} are not all there")
        return found

    def append(self, batches: Sequence[PlannedBatch]) -> None:
        """Write batches down; on return they last."""
        if self._file is None or self._entries >= _ENTRIES:
            self._open(batches[0].number)
        assert self._file is not None  # noqa: S101  # just opened
        self._file.write(b"".join(map(_line, batches)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._entries += len(batches)

    def forget(self, older_than_ms: int) -> None:
        """Delete files, the newest excepted, that were written so long ago."""
        limit = time.time() - older_than_ms / 1000
        for file in self._files()[:-1]:
            if file.stat().st_mtime < limit:
                file.unlink()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("plan-*.log"))

    def _open(self, number: int) -> None:
        self.close()
        for file in self._files()[-1:]:
            _cut(file)
        self._file = (self._folder / f"plan-{number:015d}.log").open("ab")
        self._entries = 0
        sync_folder(self._folder)


def _line(batch: PlannedBatch) -> bytes:
    body = json.dumps([batch.number, batch.ranges]).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _read(file: Path) -> Iterator[PlannedBatch]:
    for body in _bodies(file.read_bytes().split(b"\n")[:-1]):
        number, ranges = json.loads(body)
        yield PlannedBatch(number, tuple(OffsetRange(*r) for r in ranges))


def _bodies(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Up to the first line that is not whole."""
    for line in lines:
        checksum, _, body = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(body):
            return
        yield body


def _cut(file: Path) -> None:
    """Cut off what was half written, so that nothing follows it."""
    whole = b"".join(b"%08x %s\n" % (zlib.crc32(b), b) for b in _bodies(file.read_bytes().split(b"\n")[:-1]))
    if len(whole) != file.stat().st_size:
        with file.open("r+b") as opened:
            opened.truncate(len(whole))
            os.fsync(opened.fileno())
