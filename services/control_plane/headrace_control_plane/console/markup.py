"""Small pieces of HTML. Whatever comes from outside is escaped here."""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from headrace_core.contracts import Millis

#: Where there is nothing to tell.
NONE: Final = "\N{EN DASH}"

_TONES: Final = {
    "DEPLOYED": "good",
    "SUCCEEDED": "good",
    "VALIDATED": "calm",
    "RUNNING": "calm",
    "STARTING": "calm",
    "RETRYING": "warn",
    "STOPPING": "warn",
    "REJECTED": "bad",
    "FAILED": "bad",
}


def text(value: Any) -> str:
    """As text in an element or an attribute."""
    return escape(str(value), quote=True)


def pill(status: str, word: str | None = None) -> str:
    """A stage or status, told by word, and by colour besides."""
    return f'<span class="pill {_TONES.get(status, "plain")}">{text(word or status.lower())}</span>'


def moment(time: Millis | None, *, ago: bool = False) -> str:
    """A time; the browser shows it in its own zone, as a clock or as how long ago."""
    if time is None:
        return ""
    told = datetime.fromtimestamp(time / 1000, UTC)
    how = " data-ago" if ago else ""
    return f'<time datetime="{told.isoformat()}" data-ms="{time}"{how}>{told:%H:%M:%S} UTC</time>'


def figure(value: float | None, digits: int = 4) -> str:
    """A number for a table; a dash where there is none."""
    return NONE if value is None else f"{value:.{digits}f}"


def per_second(rate: float | None) -> str:
    """A rate in at most four digits."""
    if rate is None:
        return NONE
    if rate >= 9_950:
        return f"{rate / 1000:.0f}k/s"
    if rate >= 995:
        return f"{rate / 1000:.1f}k/s"
    return f"{rate:.0f}/s" if rate >= 9.95 or rate == 0 else f"{rate:.1f}/s"


def duration(seconds: float | None) -> str:
    """A time span in two or three digits."""
    if seconds is None:
        return NONE
    if seconds < 0.0995:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.00995 else f"{seconds * 1000:.0f} ms"
    if seconds < 0.995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def table(columns: Sequence[tuple[str, str]], rows: str) -> str:
    """A table in a card, which scrolls by itself where it is too wide.

    Args:
        columns: title and class of each: num, wide-only.
        rows: as HTML.
    """
    head = "".join(
        f'<th scope="col" class="{kind}">{title}</th>' if kind else f'<th scope="col">{title}</th>'
        for title, kind in columns
    )
    return f'<div class="card scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def notice(title: str, words: str = "") -> str:
    """What stands where there is nothing to show yet."""
    return f'<div class="notice"><strong>{text(title)}</strong><span>{text(words)}</span></div>'
