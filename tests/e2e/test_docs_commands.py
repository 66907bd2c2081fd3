"""What the pages of the documentation let a reader type, run as it stands: page by page, on one stack, as one would read on."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest
from headrace_stack.__main__ import app
from typer.testing import CliRunner

from tests.contract.command_lines import only_looks
from tests.integration.stack_cli import Cli
from tests.pages import CODES, ROOT, RUN, RUN_BY, Code

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

#: Shorter than the profile's, so that the test need not wait as long as a reader does.
SHORT: Final = {"HEADRACE_ATTRIBUTION_WINDOW_MS": "1000", "HEADRACE_LATENESS_MS": "500"}
#: A block may wait for something for ever; a page must not.
LONGEST_S: Final = 60
TYPED: Final = [code for code in CODES if code.language in RUN and code.page not in RUN_BY]
LOOKS: Final = sorted({code.text for code in CODES if code.language is None and only_looks(code.text)})
SQL: Final = [code for code in CODES if code.language == "sql" and code.page not in RUN_BY]


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    cli = Cli(tmp_path_factory.mktemp("docs") / "home", SHORT)
    try:
        cli.up("--profile", "demo")
        yield cli
    finally:
        cli.run("down")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the checkout, for what a page writes beside it."""
    folder = tmp_path_factory.mktemp("checkout")
    for entry in ROOT.iterdir():
        (folder / entry.name).symlink_to(entry)
    return folder


def script(page: str) -> str:
    """All that a page lets type, in one shell."""

    def in_bash(code: Code) -> str:
        return code.text if code.language == "bash" else f".venv/bin/python - <<'PYTHON'\n{code.text}PYTHON"

    return "\n".join(["set -eo pipefail", *(in_bash(code) for code in TYPED if code.page == page)])


@pytest.mark.parametrize("page", dict.fromkeys(code.page for code in TYPED))
def test_page_is_typed_as_it_stands(page: str, cli: Cli, checkout: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", script(page)],
        cwd=checkout, env=os.environ | dict(cli.environment) | {"HEADRACE_HOME": str(cli.home)},
        capture_output=True, text=True, check=False, timeout=LONGEST_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", LOOKS)
def test_command_within_a_line_is_answered(command: str, cli: Cli) -> None:
    done = CliRunner().invoke(app, command.split()[1:], env={"HEADRACE_HOME": str(cli.home)})

    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("code", SQL, ids=[code.page for code in SQL])
def test_sql_of_a_page_finds_what_it_changes(code: Code, cli: Cli) -> None:
    filled = code.text.replace("<job>", "sample-joiner").replace("<topic>", "behavior-events.v1").replace("<n>", "0")
    statement = re.sub(r": [AB]\b", ": 7", filled)

    with psycopg.connect(cli.stack()["postgres"]) as connection:
        changed = connection.execute(statement.encode()).rowcount
        connection.rollback()

    assert changed >= 1
