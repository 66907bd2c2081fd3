"""Where the embedded stack keeps things, and who may change it."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: What Kafka's first segments, PostgreSQL's first logs and a day of play need.
NEED_BYTES: Final = 512 * 1024 * 1024
#: A socket's path holds 107 bytes; the longest name below a folder of sockets is 12.
_LONGEST_SOCKET_FOLDER: Final = 90


class StackError(Exception):
    """Something a person can mend; the message is one line that says what."""


def checkout() -> Path:
    """Root of the checkout, which holds definitions/ and .headrace/cache."""
    return Path(os.environ.get("HEADRACE_CHECKOUT", Path(__file__).resolve().parents[3]))


def cache() -> Path:
    """Jars and binaries, shared by all stacks of the checkout."""
    return checkout() / ".headrace" / "cache"


@dataclass(frozen=True, slots=True)
class Layout:
    """The folder of one stack.

    Attributes:
        home: HEADRACE_HOME; data, logs and stack.json are below it.
    """

    home: Path

    @classmethod
    def from_environment(cls) -> "Layout":
        """HEADRACE_HOME, or .headrace in the checkout."""
        return cls(Path(os.environ.get("HEADRACE_HOME") or checkout() / ".headrace").resolve())

    @property
    def data(self) -> Path:
        """Data of the stores."""
        return self.home / "data"

    @property
    def logs(self) -> Path:
        """A log per process."""
        return self.home / "logs"

    @property
    def runs(self) -> Path:
        """Logs of batch tasks' runs, and what names the runs as this stack's."""
        return self.logs / "runs"

    @property
    def definitions(self) -> Path:
        """The definitions in force."""
        return self.home / "definitions"

    @property
    def applied(self) -> Path:
        """What was applied to this stack; it lies over the shipped definitions and the profile's."""
        return self.home / "applied"

    @property
    def plan(self) -> Path:
        """What the keeper keeps."""
        return self.home / "plan.json"

    @property
    def ports(self) -> Path:
        """Port of each part at the last start."""
        return self.home / "ports.json"

    @property
    def profiles_file(self) -> Path:
        """Profiles of all stacks that wrote the data, a line each."""
        return self.data / "profiles"

    @property
    def ready_mark(self) -> Path:
        """There while the stack is up; the keeper writes stack.json as long as it is."""
        return self.home / "ready"

    @property
    def stack_file(self) -> Path:
        """Addresses and processes, written when everything is ready."""
        return self.home / "stack.json"

    @property
    def pids(self) -> Path:
        """Every process with its start time, so that `down` finds them without the keeper."""
        return self.home / "pids.json"

    @property
    def sockets(self) -> Path:
        """Folder of the keeper's sockets: the home, or a short one beside it when the home's path is too long."""
        if len(os.fsencode(self.home)) <= _LONGEST_SOCKET_FOLDER:
            return self.home
        name = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path("/tmp") / f"headrace-{os.geteuid()}-{name}"  # noqa: S108  # 0700 and ours, `make` sees to it

    def make(self, profile: str = "default") -> None:
        """Create the folders, for their user only, and note whose data they will hold.

        Raises:
            StackError: the disk is too full, or a folder is not ours.
        """
        self._check_disk()
        known = self.profiles()
        noted = bool(known) or not self.has_data()  # what nobody noted from the beginning can't be known later
        for folder in (self.home, self.data, self.logs, self.data / "lake", self.data / "models", self.sockets):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.sockets.lstat().st_uid != os.geteuid():
            raise StackError(
                f"{self.sockets} belongs to somebody else: remove it, or give HEADRACE_HOME a shorter path"
            )
        if noted and profile not in known:
            with self.profiles_file.open("a", encoding="utf-8") as file:
                file.write(f"{profile}\n")

    def has_data(self) -> bool:
        """Whether a stack was ever started here."""
        return self.data.is_dir() and any(self.data.iterdir())

    def profiles(self) -> set[str]:
        """Profiles of all stacks that wrote the data; none when there are no data, or nobody noted it."""
        with suppress(FileNotFoundError):
            return set(self.profiles_file.read_text(encoding="utf-8").split())
        return set()

    def wipe(self) -> None:
        """Remove the data, what was applied, and the runs' logs; ports and the processes' logs stay."""
        for folder in (self.runs, self.applied):
            shutil.rmtree(folder, ignore_errors=True)
        for entry in self.data.iterdir() if self.data.is_dir() else ():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != self.profiles_file:
                entry.unlink()
        self.profiles_file.unlink(missing_ok=True)  # last, so that an interrupted wipe is still known to be one

    def _check_disk(self) -> None:
        there = next(folder for folder in (self.home, *self.home.parents) if folder.exists())
        free = shutil.disk_usage(there).free
        if free < NEED_BYTES:
            raise StackError(f"{there} has {free >> 20} MiB free, the stack needs {NEED_BYTES >> 20} MiB")

    @contextmanager
    def locked(self, waiting: "str | None" = None) -> Iterator[None]:
        """Hold the stack alone: one `up` or `down` at a time; the next one waits.

        Args:
            waiting: said to stderr when somebody else is at it.
        """
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.home / "lock").open("a") as file:  # not inherited, so it ends with this process at the latest
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting:
                    os.write(2, f"{waiting}\n".encode())
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
