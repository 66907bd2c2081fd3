"""What the command line refuses, with code 2 and the option's name."""

import pytest
from headrace_stack.__main__ import app
from typer.testing import CliRunner


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["up", "--profile", "fast"], "--profile fast: want one of default, demo"),
        (["up", "--workers", "sample-joiner"], "--workers sample-joiner: want SERVICE=COUNT"),
        (["up", "--workers", "sample-joiner=0"], "--workers sample-joiner=0: want SERVICE=COUNT"),
        (["up", "--workers", "joiner=2"], "--workers joiner=2: want SERVICE=COUNT"),
        (["up", "--only", "joiner"], "--only joiner: want one of"),
    ],
)
def test_wrong_option_is_refused(arguments: list[str], told: str, capfd: pytest.CaptureFixture[str]) -> None:
    done = CliRunner().invoke(app, arguments)

    assert done.exit_code == 2
    assert told in done.stderr + capfd.readouterr().err
