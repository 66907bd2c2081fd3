"""Every expression of a dashboard and of a rule gives data: a real Prometheus looks at the demo's running stack."""

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from aiokafka import AIOKafkaProducer
from headrace_stack import prometheus

from load_tests.serving.process import free_port
from monitoring.dashboards import rendered
from tests.integration.stack_cli import SHORT, Cli
from tests.monitoring.test_rules import RULES, rules

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not prometheus.folder().is_dir(), reason="set-up could not bring Prometheus"),
]

#: A base is trained, an increment is validated and serves, and some windows have passed.
DEADLINE_S = 420


def expressions() -> dict[str, str]:
    """By where they stand; Grafana's own variables as it would fill them in."""
    found = {}
    for content in rendered().values():
        board = json.loads(content)
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                expression = target["expr"].replace("$__rate_interval", "1m").replace("$model", ".*")
                found[f"{board['title']} / {panel['title']} / {target['refId']}"] = expression
    return found | {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


class Prometheus:
    """Scrapes every process of a stack, with the chart's rules."""

    def __init__(self, stack: dict[str, Any], folder: Path) -> None:
        self.gateway = stack["gateway"]
        targets = [
            {
                "targets": [process["metrics"].removeprefix("http://")],
                "labels": {"job": f"headrace-{process['service']}"},
            }
            for process in stack["processes"]
            if "metrics" in process
        ]
        told = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "headrace", "static_configs": targets}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(told), encoding="utf-8")
        self.url = f"http://127.0.0.1:{free_port()}"
        with (folder / "prometheus.log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    prometheus.folder() / "prometheus", f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data", f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip

    def ask(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def has(self, expression: str) -> bool:
        """Whether there is a value, and none is NaN."""
        found = self.ask("query", query=expression)["result"]
        return bool(found) and any(one["value"][1] != "NaN" for one in found)


def send_click(gateway: str, at: int) -> int:
    """A click of that time; the answer's status."""
    event = {
        "event_id": f"at-{at}", "user_id": "4", "event_time": at, "action": "click", "item_id": "2001",
        "item_type": "ad", "page_id": "100",
    }  # fmt: skip
    return httpx.post(f"{gateway}/v1/events", json={"events": [event]}, timeout=30).status_code


async def send_nonsense(kafka: str) -> None:
    """A record that is no message."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        await producer.send_and_wait("behavior-events.v1", b"not a message", key=b"4")
    finally:
        await producer.stop()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """The demo's stack with a crowd, some of which send nonsense, and a Prometheus."""
    cli = Cli(tmp_path_factory.mktemp("monitoring") / "home")
    crowd = None
    try:
        stack = cli.up("--profile", "demo", **SHORT)
        watching = Prometheus(stack, tmp_path_factory.mktemp("prometheus"))
        try:
            crowd = cli.start("simulate", "--world", "story", "--seconds", str(DEADLINE_S), "--rate", "15")
            asyncio.run(send_nonsense(stack["kafka"]))
            yield watching
        finally:
            watching.process.terminate()
            watching.process.wait(30)
    finally:
        if crowd is not None:
            crowd.terminate()
            crowd.communicate(timeout=60)
        cli.run("down")


def test_every_expression_gives_data(watched: Prometheus) -> None:
    missing = dict(expressions())
    assert send_click(watched.gateway, 1) == 422  # older than any event may be
    end = time.monotonic() + DEADLINE_S
    while missing and time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):  # it begins
            missing = {place: expression for place, expression in missing.items() if not watched.has(expression)}
        assert (
            send_click(watched.gateway, int(time.time() * 1000) - 3_600_000) == 202
        )  # after its windows, once time goes on
        time.sleep(1)

    assert missing == {}


def test_what_alerts_compare_is_there_and_a_sound_stack_raises_none(watched: Prometheus) -> None:
    groups = watched.ask("rules")["groups"]
    loaded = {rule["name"]: rule for group in groups for rule in group["rules"]}

    assert set(loaded) == {rule.get("alert") or rule["record"] for rule in rules()}
    assert {name: rule["lastError"] for name, rule in loaded.items() if rule.get("lastError")} == {}
    assert [
        alert["labels"]["alertname"] for alert in watched.ask("alerts")["alerts"] if alert["state"] == "firing"
    ] == []
    assert {one["metric"]["job"] for one in watched.ask("query", query="up == 1")["result"]} >= {
        "headrace-gateway", "headrace-feature-worker", "headrace-sample-joiner", "headrace-control-plane",
        "headrace-model-server", "headrace-model-validator", "headrace-trainer",
    }  # fmt: skip
