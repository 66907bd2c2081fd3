"""The pages of the documentation, and the code that they show."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = [ROOT / "README.md", ROOT / "services" / "client" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Languages of blocks that are run as they stand, and the modules that run them.
RUN: Final = {"bash", "python"}
RUN_BY_ONE: Final = "tests/e2e/test_docs_commands.py"
#: Run the blocks of ```sh that tests/cluster/documented.py names: on a real API server, and on a cluster of kind.
RUN_ON_KUBERNETES: Final = "tests/cluster/test_documented_operations.py"
RUN_ON_NODES: Final = "tests/kind/test_one_machine.py"
#: Pages that have a module of their own.
RUN_BY: Final = {
    "README.md": "tests/e2e/test_readme.py",
    "docs/tutorial.md": "tests/e2e/test_tutorial.py",
}

_MARKDOWN: Final = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True, slots=True)
class Code:
    """Code in a page.

    Attributes:
        page: by its path in the checkout.
        line: where its block begins, from 1.
        language: that a fence tells, "" where it tells none; None for code within a line.
        text: the code.
        column: title of the table's column that it stands in.
    """

    page: str
    line: int
    language: str | None
    text: str
    column: str = ""


@dataclass(slots=True)
class _Table:
    """Where in a table the reading is.

    Attributes:
        titles: of the columns, of the table that is read.
        column: number of the cell that is read; -1 outside of any.
    """

    titles: list[str] = field(default_factory=list)
    column: int = -1

    def read(self, token: Token) -> None:
        if token.type == "table_open":
            self.titles = []
        elif token.type in {"tr_open", "table_close"}:
            self.column = -1
        elif token.type in {"th_open", "td_open"}:
            self.column += 1
        elif token.type == "inline" and self.column == len(self.titles):
            self.titles.append(token.content)

    @property
    def title(self) -> str:
        return self.titles[self.column] if 0 <= self.column < len(self.titles) else ""


def codes(page: Path) -> Iterator[Code]:
    """All code of a page, in order."""
    name, line, table = str(page.relative_to(ROOT)), 1, _Table()
    for token in _MARKDOWN.parse(page.read_text(encoding="utf-8")):
        if token.map:
            line = token.map[0] + 1
        table.read(token)
        if token.type == "fence":
            yield Code(name, line, token.info.strip(), token.content)
        for child in token.children or ():
            if child.type == "code_inline":
                yield Code(name, line, None, child.content, table.title)


CODES: Final = [code for page in PAGES for code in codes(page)]
