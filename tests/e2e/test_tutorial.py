"""The tutorial's own commands, run as they stand, do what it says."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.integration.stack_cli import Cli

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

ROOT: Final = Path(__file__).resolve().parents[2]
#: Shorter than the profile's, so that the test need not wait as long as a reader does.
SHORTER: Final = {
    "HEADRACE_ATTRIBUTION_WINDOW_MS": "6000",
    "HEADRACE_TRAIN_EVERY_MS": "5000",
}
MARK: Final = "-- block"


def blocks() -> list[str]:
    """The code blocks of the page, in order."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    return re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each block printed, by its text, after all of them ran in one shell."""
    folder = tmp_path_factory.mktemp("tutorial")
    cli = Cli(folder / "stack")
    # What the page leaves running ends with the shell, wherever that ends.
    script = "set -eo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
    script += "\n".join(f"echo '{MARK}'\n{block}" for block in blocks())
    environment = os.environ | {"HOME": str(folder), "HEADRACE_HOME": str(cli.home), "COLUMNS": "200"} | SHORTER
    with (folder / "printed").open("w+") as printed, (folder / "errors").open("w+") as errors:
        try:
            done = subprocess.run(
                ["bash", "-c", script], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=printed, stderr=errors,
                check=False, timeout=480,
            )  # fmt: skip
            left = cli.processes()
        finally:
            cli.run("down")
    text = (folder / "printed").read_text(encoding="utf-8")
    assert done.returncode == 0, text[-3_000:] + (folder / "errors").read_text(encoding="utf-8")[-3_000:]
    assert left == []
    return dict(zip(blocks(), text.split(f"{MARK}\n")[1:], strict=True))


def output(outputs: dict[str, str], start: str) -> str:
    """What the one block printed that begins so."""
    found = [text for block, text in outputs.items() if block.startswith(start)]
    assert len(found) == 1, f"{len(found)} blocks of the tutorial begin with {start}"
    return found[0]


def test_own_events_are_accepted_and_become_features(outputs: dict[str, str]) -> None:
    catalog = output(outputs, 'curl -sS -X POST "$GATEWAY/v1/items:batch"').splitlines()
    event = output(outputs, 'curl -sS -X POST "$GATEWAY/v1/events"')
    sent = output(outputs, "cat > looks.jsonl")

    assert [json.loads(line)["accepted"] for line in catalog] == [3, 1]
    assert json.loads(event) == {"accepted": 1, "rejected": []}
    assert "accepted 4" in sent
    (ann,) = [json.loads(line) for line in sent.splitlines() if line.startswith("{")]
    ((feature, seen),) = [(f["feature"], f["value"]) for f in ann["items"]]
    assert feature == "user_last_5_minutes"
    # Events of one millisecond have no order among them.
    assert [(e["item_id"], e["category"]) for e in seen] == [
        ("sencha", "green"),
        ("matcha", "green"),
        ("matcha", "green"),
    ]
    assert sorted(e["action"] for e in seen[1:]) == ["click", "view"]


def test_own_feature_is_one_file_and_counts_within_seconds(outputs: dict[str, str]) -> None:
    applied = output(outputs, "cat > most_viewed.yaml")
    ranked = output(outputs, "headrace send looks.jsonl")

    assert re.search(r"features\W+most_viewed\W+new", applied)
    assert re.search(r"taken by feature-worker-0, gateway-0 within [0-9.]+ s", applied)
    assert re.search(r"1\W+matcha\W+2\b", ranked)


def test_mistake_is_told_by_line_and_the_other_features_stay(outputs: dict[str, str]) -> None:
    printed = output(outputs, "sed 's/^by: ")

    assert "headrace: wrong.yaml:5: by: no such column: colour" in printed
    assert "refused with code 1" in printed
    assert set(re.findall(r"│ ([a-z_0-9]+) +│ [0-9a-f]{8} ", printed)) == {
        "item_click_rate_by_category", "most_viewed", "top_ads_by_segment", "user_last_5_minutes",
    }  # fmt: skip


def test_first_model_serves(outputs: dict[str, str]) -> None:
    assert served_by(output(outputs, "until headrace sql")) >= 1


def test_model_with_an_input_of_ones_own_replaces_the_one_that_served_meanwhile(outputs: dict[str, str]) -> None:
    applied = output(outputs, "cat > user_clicks.yaml")
    meanwhile = output(outputs, "headrace recommend ann --page shop -n 3\nuntil")
    after = output(outputs, "headrace recommend ann --page shop -n 3\nheadrace models")

    assert re.search(r"models\W+ctr\W+changed", applied)
    assert "feature-worker-0, gateway-0, model-validator-0, trainer-0" in applied
    assert re.search(r"^reads .*\bclicked_categories\b", meanwhile, re.MULTILINE)
    assert 1 <= served_by(meanwhile) < served_by(after)
    assert "DEPLOYED" in after


def test_own_rule_fires_when_its_condition_is_met_and_tells_why(outputs: dict[str, str]) -> None:
    before = output(outputs, "headrace events send stock sencha")
    after = output(outputs, "headrace events send stock matcha")

    assert "missing: 1 more of 3: event stock LOW" in before
    assert "has not fired" in before
    assert re.search(r"tea_shop.order.1 .*SUCCEEDED", after)
    fired = after.partition("fired ")[2]
    assert re.findall(r"stock LOW (\w+)", fired) == ["sencha", "assam", "matcha"]


def test_what_was_applied_is_listed(outputs: dict[str, str]) -> None:
    printed = output(outputs, "headrace apply --list")

    assert set(re.findall(r"│ (\w+\.(?:yaml|py)) ", printed)) == {
        "most_viewed.yaml", "user_clicks.yaml", "ctr.yaml", "tea_shop.py"
    }  # fmt: skip


def served_by(printed: str) -> int:
    """The version that an answer names."""
    (version,) = re.findall(r"scored by ctr (\d+)", printed)
    return int(version)
