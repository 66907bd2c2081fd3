"""The live table of the demo, and a picture of it for a page."""

import io
import re
from pathlib import Path
from typing import Final

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from headrace_stack.demo.scene import Shown
from headrace_stack.demo.story import Figures, Telling

#: Columns of a picture: as wide as the longest step.
_WIDTH: Final = 102


def picture(telling: Telling, console_address: str) -> Group:
    """Everything as it is now."""
    figures = telling.figures
    return Group(
        Panel(_steps(figures), title="the story", title_align="left"),
        Panel(_now(figures), title="Chinese men on page 100", title_align="left"),
        Panel(_figures(telling), title="figures", title_align="left"),
        Text(f"console: {console_address}", style="dim"),
    )


def write_svg(shown: Group, file: Path) -> None:
    """A picture of what is shown, as a terminal draws it; it asks nobody for a font."""
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(shown)
    drawn = console.export_svg(title="headrace demo", unique_id="demo")
    file.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL), encoding="utf-8")


def _steps(figures: Figures) -> Table:
    table = Table.grid(padding=(0, 2))
    for step in figures.steps:
        if step.seconds is not None:
            table.add_row(Text("✔", style="green"), step.name, f"{step.seconds:.1f} s")
        elif step.failed:
            table.add_row(Text("✘", style="red"), step.name, step.failed)
        else:
            table.add_row(Text("…", style="yellow"), step.name, "")
    return table


def _now(figures: Figures) -> Table:
    table = Table("who", "city", "is shown", "by", box=None)
    for name, city, shown in (
        ("user 4", "Shanghai", figures.user_4), ("a newcomer", "Beijing", figures.newcomer),
    ):  # fmt: skip
        table.add_row(name, city, " > ".join(shown.items) if shown else "-", by(shown))
    table.add_row("", "", "", "")
    ads = ", ".join(f"{item} ({clicks})" for item, clicks in figures.top_ads) or "-"
    table.add_row("ten top ads", "", ads, "clicks in the window")
    return table


def by(shown: Shown | None) -> str:
    """Who ranked."""
    if shown is None:
        return "-"
    return f"model version {shown.version}" if shown.version else f"popularity ({', '.join(shown.degraded)})"


def _figures(telling: Telling) -> Table:
    figures, tally = telling.figures, telling.visitors.tally
    table = Table.grid(padding=(0, 2))
    table.add_row("visits, impressions, clicks", f"{tally.visits}, {tally.impressions}, {tally.clicks}")
    table.add_row("click → feature, p50 / p99", str(figures.feature))
    table.add_row("click → sample, p50 / p99", str(figures.sample))
    table.add_row("sampled click → serving weights, p50 / p99", str(figures.weights))
    if figures.quality:
        q = figures.quality
        table.add_row(
            f"log loss on {q['count']} held-out samples, live / frozen base",
            f"{q['live_logloss']:.4f} / {q['frozen_logloss']:.4f}",
        )
        table.add_row("gap, 95 % interval", f"{q['gap']:.4f} ({q['gap_low']:.4f} to {q['gap_high']:.4f})")
        table.add_row("AUC, live / frozen base", f"{q['live_auc']:.3f} / {q['frozen_auc']:.3f}")
    return table
