"""The Open Bandit logs: impressions and clicks of a fashion site under two policies.

Source: Saito et al., Open Bandit Dataset and Pipeline, NeurIPS 2021 (arXiv 2008.07146); the data are under CC BY 4.0.

Six files of 10,000 rows lie inside the source distribution of the Python package obp 0.5.7. They hold no slates, no click times,
no user ids, and item ids clash between campaigns. So each row is a request that ranks the campaign's items, with the logged item as
the impression; a user is who shares user_feature_0..3; an item is campaign/item; the delay of a click is drawn by a seed.
"""

import hashlib
import heapq
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from headrace_client import Item, User

from headrace_stack.commands.terminal import AwayError, CommandError
from headrace_stack.layout import cache
from headrace_stack.replay.slate import Faults, Shown, Slate
from headrace_stack.replay.table import count_rows, rows_of
from headrace_stack.replay.values import identifier, moment_ms, place, probability, yes

SHA256: Final = "3060d67fedfcfadf1e7a6f2608987f74412b5eb74d2c567edeb147595c68f2a0"
POLICIES: Final = ("random", "bts")
CAMPAIGNS: Final = ("all", "men", "women")
_INSIDE: Final = "obp-0.5.7/obp/dataset/obd/"
_DOWNLOAD_SECONDS: Final = 300.0
_USER_COLUMNS: Final = tuple(f"user_feature_{n}" for n in range(4))
_COLUMNS: Final = ("timestamp", "item_id", "position", "click", "propensity_score", *_USER_COLUMNS)
_ITEM_COLUMNS: Final = ("item_id", *(f"item_feature_{n}" for n in range(4)))


def obtain(told: Path | None, progress: Callable[[str], None] = lambda _: None) -> Path:
    """The folder with random/all/all.csv and its like.

    Args:
        told: that folder, one above it, or the source distribution; None: downloaded by pip on first use, and kept.
        progress: told what happens, in words.

    Raises:
        CommandError: `told` holds no such logs.
        AwayError: they can't be downloaded.
    """
    if told is None:
        kept = cache() / "open-bandit"
        if not _is_whole(kept):
            progress("downloading the Open Bandit logs (obp 0.5.7, 1.3 MB)")
            _download(kept)
        return kept
    if told.is_file():
        kept = cache() / f"open-bandit-{hashlib.sha256(told.read_bytes()).hexdigest()[:12]}"
        if not _is_whole(kept):
            _unpack(told, kept)
        return kept
    for folder in (told, told / "obd", told / "obp" / "dataset" / "obd"):
        if _is_whole(folder):
            return folder
    raise CommandError(
        f"{told} has no random/all/all.csv and its like: name the folder obd of obp, or obp-0.5.7.tar.gz"
    )


def _is_whole(folder: Path) -> bool:
    return all(
        (folder / p / c / name).is_file()
        for p in POLICIES
        for c in CAMPAIGNS
        for name in (f"{c}.csv", "item_context.csv")
    )


def _download(kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"obp==0.5.7 --hash=sha256:{SHA256}\n", encoding="utf-8")
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:",
            "--ignore-requires-python", "--require-hashes", "--retries", "1", "--dest", folder, "-r", str(wanted),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False)
            said = done.stderr.strip().splitlines()
        except subprocess.TimeoutExpired:
            said = [f"no end after {_DOWNLOAD_SECONDS:.0f} s"]
        archive = Path(folder) / "obp-0.5.7.tar.gz"
        if not archive.is_file():
            why = next((line for line in said if line.startswith("ERROR")), said[-1] if said else "pip says nothing")
            raise AwayError(
                f"the Open Bandit logs can't be downloaded ({why.removeprefix('ERROR: ')}): get obp-0.5.7.tar.gz from "
                "pypi.org on another machine and name it with --from FILE"
            )
        _unpack(archive, kept)


def _unpack(archive: Path, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=kept.parent))
    try:
        with tarfile.open(archive) as source:
            wanted = [m for m in source.getmembers() if m.name.startswith(_INSIDE) and m.name.endswith(".csv")]
            source.extractall(partial, wanted, filter="data")
        shutil.rmtree(kept, ignore_errors=True)
        (partial / _INSIDE).rename(kept)
    except (tarfile.TarError, OSError) as error:
        raise CommandError(f"{archive} is not the source distribution of obp 0.5.7: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if not _is_whole(kept):
        raise CommandError(f"{archive} is not the source distribution of obp 0.5.7: logs are missing in it")


@dataclass
class OpenBandit:
    """All six files, merged by time.

    Attributes:
        folder: as `obtain` found it.
        delay: of a click, by source and row.
        limit: rows of each file, from its beginning; None for all.
        salt: anything else that makes it another log.
    """

    folder: Path
    delay: Callable[[str, int], float]
    limit: int | None = None
    salt: str = ""
    faults: Faults = field(default_factory=Faults)
    name: str = "Open Bandit"

    @property
    def rows(self) -> int:
        """Lines of all files."""
        counts = [count_rows(self._file(p, c)) for p in POLICIES for c in CAMPAIGNS]
        return sum(counts if self.limit is None else (min(n, self.limit) for n in counts))

    @property
    def fingerprint(self) -> str:
        """Of all files."""
        digest = hashlib.sha256(repr((self.limit, self.salt)).encode())
        for policy in POLICIES:
            for campaign in CAMPAIGNS:
                digest.update(self._file(policy, campaign).read_bytes())
        return digest.hexdigest()[:16]

    def slates(self) -> Iterator[Slate]:
        """A slate per row, in the order of time."""
        self.faults = Faults()
        known: set[str] = set()
        yield from heapq.merge(
            *(self._campaign(policy, campaign, known) for campaign in CAMPAIGNS for policy in POLICIES),
            key=attrgetter("at_ms"),
        )

    def _file(self, policy: str, campaign: str) -> Path:
        return self.folder / policy / campaign / f"{campaign}.csv"

    def _campaign(self, policy: str, campaign: str, known: set[str]) -> Iterator[Slate]:
        source = f"{policy}/{campaign}"

        def bad(line: int, what: str) -> None:
            self.faults.add(line, what, source)

        items = list(self._items(policy, campaign, bad))
        candidates = [item.item_id for item in items]
        first = True
        for line, values in rows_of(self._file(policy, campaign), _COLUMNS, bad):
            if self.limit is not None and line > self.limit + 1:
                return
            try:
                slate = self._slate(source, campaign, line, dict(zip(_COLUMNS, values, strict=True)), candidates)
            except (ValueError, TypeError) as error:
                bad(line, str(error))
                continue
            users = [_user(slate.user_id, values[-len(_USER_COLUMNS) :])] if slate.user_id not in known else []
            known.add(slate.user_id)
            if users or first:
                slate = Slate(
                    slate.source, slate.at_ms, slate.user_id, slate.page_id, candidates, slate.shown, users=users,
                    items=items if first else (), judged=slate.judged,
                )  # fmt: skip
            first = False
            yield slate

    def _slate(self, source: str, campaign: str, line: int, told: Mapping[str, Any], candidates: list[str]) -> Slate:
        item_id = f"{campaign}/{identifier(told['item_id'])}"
        position = place(told["position"]) - 1
        if position < 0:
            raise ValueError("position: begins at 1")
        features = "|".join(told[name] for name in _USER_COLUMNS)
        shown = Shown(
            line,
            item_id,
            position,
            self.delay(source, line) if yes(told["click"]) else None,
            probability(told["propensity_score"]),
        )
        return Slate(
            source=source,
            at_ms=moment_ms(told["timestamp"]),
            user_id=f"ob-{hashlib.sha256(features.encode()).hexdigest()[:16]}",
            page_id=campaign,
            candidates=candidates,
            shown=[shown],
            judged=source.startswith("random/"),
        )

    def _items(self, policy: str, campaign: str, bad: Callable[[int, str], None]) -> Iterator[Item]:
        file = self.folder / policy / campaign / "item_context.csv"
        for _, (item, *features) in rows_of(file, _ITEM_COLUMNS, bad):
            yield Item(
                item_id=f"{campaign}/{item}",
                item_type="goods",
                category=f"{campaign}/{features[1][:8]}",
                attributes={f"item_feature_{n}": value for n, value in enumerate(features)},
            )


def _user(user_id: str, features: tuple[str, ...]) -> User:
    return User(user_id=user_id, attributes=dict(zip(_USER_COLUMNS, features, strict=True)))
