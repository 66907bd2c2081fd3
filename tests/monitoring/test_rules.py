"""Alert rules: promtool proves each both ways; each has its runbook; all speak of metrics that the code emits."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from headrace_stack import prometheus

from monitoring.dashboards import FOLDER, rendered

ROOT = Path(__file__).parents[2]
RULES = ROOT / "charts" / "headrace" / "rules" / "headrace.yaml"
TESTS = Path(__file__).with_name("rules_test.yaml")
PROMTOOL = prometheus.folder() / "promtool"
SUFFIXES = r"_(bucket|count|sum)$"

needs_promtool = pytest.mark.skipif(not PROMTOOL.exists(), reason="set-up could not bring Prometheus")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def documented() -> set[str]:
    """Metrics of docs/metrics.md, which another test holds equal to the code."""
    return set(
        re.findall(r"^\| `(headrace_\w+)`", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE)
    )


def used(expression: str) -> set[str]:
    return {re.sub(SUFFIXES, "", name) for name in re.findall(r"\bheadrace_\w+", expression)}


@needs_promtool
@pytest.mark.parametrize("arguments", [["check", "rules", str(RULES)], ["test", "rules", str(TESTS)]])
def test_promtool_finds_nothing_wrong(arguments: list[str]) -> None:
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_is_tested_both_ways(alert: str) -> None:
    tests = [
        one for group in yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"]
        for one in group["alert_rule_test"] if one["alertname"] == alert
    ]  # fmt: skip

    assert {bool(one.get("exp_alerts")) for one in tests} == {True, False}


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_has_a_runbook_and_a_severity(alert: str) -> None:
    runbooks = (ROOT / "docs" / "operations" / "runbooks.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {alert}\n+(.+?)(?=^## |\Z)", runbooks, re.MULTILINE | re.DOTALL)

    assert section is not None, "no section in docs/operations/runbooks.md"
    assert len(section[1].split()) > 20
    assert ALERTS[alert]["labels"]["severity"] in {"page", "ticket"}


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    runbooks = (ROOT / "docs" / "operations" / "runbooks.md").read_text(encoding="utf-8")

    assert set(re.findall(r"^## (Headrace\w+)", runbooks, re.MULTILINE)) == set(ALERTS)


def test_rules_use_only_metrics_that_there_are() -> None:
    assert set().union(*(used(rule["expr"]) for rule in rules())) <= documented()


def test_dashboards_use_only_metrics_that_there_are() -> None:
    assert set().union(*(used(content) for content in rendered().values())) <= documented()


def test_dashboards_of_the_chart_are_those_of_the_code() -> None:
    """`make reference` writes them."""
    assert {file.name: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.json")} == rendered()
