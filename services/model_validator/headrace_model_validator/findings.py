"""What a validation looked at, with what it found. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One threshold and what was measured.

    Attributes:
        check: what is looked at, e.g. logloss_increase.
        passed: whether it holds.
        value: that was measured.
        threshold: that it must keep to, in words, e.g. "≤ 0.02".
        slice: of which samples; empty for all.
        note: more words.
    """

    check: str
    passed: bool
    value: Any = None
    threshold: str = ""
    slice: str = ""
    note: str = ""

    def __str__(self) -> str:
        """One line for people."""
        where = f" of {self.slice}" if self.slice else ""
        value = f"{self.value:.6g}" if isinstance(self.value, float) else str(self.value)
        measured = f" is {value}" if self.value is not None else ""
        wanted = f", {self.threshold} is wanted" if self.threshold else ""
        return f"{self.check}{where}{measured}{wanted}{f': {self.note}' if self.note else ''}"

    def noting(self, more: str) -> "Finding":
        """The same with more words."""
        return replace(self, note="; ".join(filter(None, (self.note, more))))

    def as_json(self) -> dict[str, Any]:
        """For the version's history."""
        return asdict(self)


def failures(findings: Sequence[Finding]) -> list[Finding]:
    """Those that reject a version."""
    return [f for f in findings if not f.passed]


def verdict(findings: Sequence[Finding]) -> str:
    """Why, in one line: each threshold that does not hold with value and slice, or how many hold."""
    failed = failures(findings)
    return "; ".join(str(f) for f in failed) if failed else f"{len(findings)} checks hold"
