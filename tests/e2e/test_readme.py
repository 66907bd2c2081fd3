"""The README's own commands, run as they stand, do what it says."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.stack_cli import Cli

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

ROOT: Final = Path(__file__).resolve().parents[2]
#: Shorter than the profile's, so that the test need not wait as long as a reader does.
WINDOW_MS: Final = "6000"
MARK: Final = "-- block"


def blocks() -> list[str]:
    """The code blocks of the walk-through, in order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each block printed, by its first line, after all of them ran in one shell."""
    cli = Cli(tmp_path_factory.mktemp("readme") / "home")
    script = "set -eo pipefail\n" + "\n".join(f"echo '{MARK}'\n{block}" for block in blocks())
    environment = os.environ | {"HEADRACE_HOME": str(cli.home), "HEADRACE_ATTRIBUTION_WINDOW_MS": WINDOW_MS}
    try:
        done = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=180,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    finally:
        left = cli.processes()
        cli.run("down")
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert left == []
    printed = done.stdout.split(f"{MARK}\n")[1:]
    return {block.splitlines()[0]: text for block, text in zip(blocks(), printed, strict=True)}


def output(outputs: dict[str, str], start: str) -> str:
    """What the one block printed whose first line begins so."""
    found = [text for line, text in outputs.items() if line.startswith(start)]
    assert len(found) == 1, f"{len(found)} blocks of the README begin with {start}"
    return found[0]


def lines_of_json(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_stack_of_the_readme_comes_up(outputs: dict[str, str]) -> None:
    assert json.loads(output(outputs, ".venv/bin/headrace up"))["profile"] == "demo"


def test_catalog_and_events_are_accepted(outputs: dict[str, str]) -> None:
    catalog = lines_of_json(output(outputs, "post()"))
    events = lines_of_json(output(outputs, "event()"))[:3]

    assert [answer["accepted"] for answer in catalog] == [1] * 4
    assert events == [{"accepted": 1, "rejected": []}] * 3


def test_top_list_of_segment_and_page_follows_the_clicks(outputs: dict[str, str]) -> None:
    first = lines_of_json(output(outputs, "event()"))[-1]
    second, user = lines_of_json(output(outputs, "event click ad3"))[-2:]

    assert [(m["item_id"], m["score"]) for m in first["items"]] == [("ad2", 2.0), ("ad1", 1.0)]
    assert second["items"][0] == {"item_id": "ad3", "score": 3.0, "numerator": 3.0, "denominator": 0.0}
    assert second["version"] > first["version"]
    clicks = [click["item_id"] for feature in user["items"] for click in feature["value"]]
    assert clicks == ["ad2", "ad1", "ad2", "ad3", "ad3", "ad3"]


def test_rank_says_that_no_model_serves(outputs: dict[str, str]) -> None:
    answer = lines_of_json(output(outputs, "rank()"))[0]

    assert {item["item_id"] for item in answer["items"]} == {"ad1", "ad2", "ad3"}
    assert [item["position"] for item in answer["items"]] == [0, 1, 2]
    assert answer["model_version"] == 0
    assert "no_model" in answer["degraded"]


def test_clicked_impression_is_a_positive_of_version_one_with_features(outputs: dict[str, str]) -> None:
    row = output(outputs, "event impression ad1").splitlines()[-1].split(maxsplit=3)

    assert row[:3] == ["ad1", "1", "1"]
    assert "user_last_5_minutes" in row[3]


def test_ignored_impression_is_a_negative_after_the_window(outputs: dict[str, str]) -> None:
    assert output(outputs, 'until sample "$IGNORED" | grep ad1').split()[:3] == ["ad1", "0", "1"]


def test_late_click_is_a_correction_that_tells_the_label_before(outputs: dict[str, str]) -> None:
    printed = output(outputs, 'event click ad1 "$IGNORED"')
    changes = [told for told in lines_of_json(printed) if "operation" in told]

    assert [line.split()[:3] for line in printed.splitlines() if line.startswith("ad1")] == [["ad1", "1", "2"]]
    assert [(c["operation"], c["previous_label"], c["sample"]["label"], c["sample"]["version"]) for c in changes] == [
        ("OPERATION_INSERT", 0, 0, 1),
        ("OPERATION_CORRECT", 0, 1, 2),
    ]


def test_accounting_closes(outputs: dict[str, str]) -> None:
    names, row = (line.split() for line in output(outputs, ".venv/bin/headrace sql 'SELECT sum(").splitlines())
    account = dict(zip(names, map(int, row), strict=True))

    assert account == {
        "impressions": 2, "joined": 2, "positive": 2, "negative": 0, "orphaned": 0, "duplicate": 0, "pending": 0
    }  # fmt: skip


def test_status_of_the_readme_is_ready(outputs: dict[str, str]) -> None:
    printed = output(outputs, ".venv/bin/headrace status")

    assert "ready" in printed
    assert "running" not in printed
