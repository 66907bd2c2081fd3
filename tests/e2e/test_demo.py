"""`headrace demo --ci` tells its story, and every step comes true."""

import json

import pytest

from tests.integration.stack_cli import Cli

pytestmark = [pytest.mark.stack, pytest.mark.long, pytest.mark.timeout(900)]


def test_story_of_the_demo_comes_true(tmp_path_factory: pytest.TempPathFactory) -> None:
    cli = Cli(tmp_path_factory.mktemp("demo") / "home")
    process = cli.start("demo", "--ci")
    try:
        output, errors = process.communicate(timeout=800)
    finally:
        process.kill()
        cli.run("down")

    figures = json.loads(output)
    assert process.returncode == 0, errors[-3_000:]
    assert figures["ok"]
    assert [s["name"] for s in figures["steps"] if s["seconds"] is None] == []
    assert figures["user_4"]["items"][0] == "2002"
    assert figures["newcomer"]["items"][0] == "2011"
    assert figures["quality"]["gap_low"] > 0
