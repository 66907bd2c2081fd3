"""The docs name what there is."""

import re
import subprocess
from pathlib import Path

import pytest
from headrace_stack.reference import metrics_page

from tests.pages import PAGES, ROOT


def test_metrics_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == metrics_page(), "run `make reference`"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_page_that_code_or_pages_name_is_there() -> None:
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.md", "*.proto", "*.yaml", "*.sql"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for file in files:
        path = ROOT / file
        if not path.exists():
            continue  # deleted, not yet committed
        for named in re.findall(r"docs/[a-z0-9/-]+\.md", path.read_text(encoding="utf-8")):
            assert (ROOT / named).exists(), f"{file} names {named}"


def test_decisions_are_numbered_and_tell_context_decision_and_cost() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))

    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text(encoding="utf-8")
        assert text.startswith(f"# {record.name[:4]} "), record.name
        for part in ("**Context.**", "**Decision.**", "**What it costs.**"):
            assert part in text, record.name


def test_help_tells_every_target_a_person_types() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    wanted = {"setup", "up", "down", "test", "test-all", "check", "bench", "pictures", "clean", "help"}
    assert wanted <= {line.split()[0] for line in told.splitlines()}


def test_imports_keep_to_their_layers() -> None:
    done = subprocess.run(
        [ROOT / ".venv" / "bin" / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout
