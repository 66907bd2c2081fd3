"""`headrace apply` on a running stack: what is valid is taken live, what is not changes nothing, and it stays."""

import hashlib
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.integration.stack_cli import Cli, running, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

OWN: Final = """\
feature: {name}
source: behavior-events
where: action = 'view'
by: [page_id]
window: {{size: 10m, every: 1s}}
top: {{of: item_id, rank_by: count, k: 5}}
"""
USERS: Final = 20


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    made = Cli(tmp_path_factory.mktemp("apply") / "home", {"HEADRACE_IDLE_AFTER_MS": "300"})
    services = ("gateway", "feature-worker", "control-plane")
    yield from running(made, *(w for s in services for w in ("--only", s)), "--workers", "feature-worker=2")


@pytest.fixture
def gateway(cli: Cli) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cli.stack()["gateway"], timeout=30) as client:
        yield client


def an_event(n: int, action: str, page: str) -> dict[str, Any]:
    return {
        "event_id": str(uuid.uuid4()), "user_id": f"u{n % USERS}", "event_time": int(time.time() * 1000), "action": action,
        "item_id": "i1", "item_type": "ad", "page_id": page, "segment": {"country": "China", "gender": "male"},
    }  # fmt: skip


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def ranked(gateway: httpx.Client, feature: str, key: str) -> list[tuple[str, float]]:
    answer = gateway.get(f"/v1/features/top/{feature}/{key}")
    return [(i["item_id"], i["score"]) for i in answer.json()["items"]] if answer.status_code == 200 else []


def feature_set(gateway: httpx.Client) -> int:
    answer = gateway.post("/v1/rank", json={"user_id": "u1", "page_id": "p", "candidates": ["i1"]})
    return int(answer.json()["feature_set_version"])


def digest(cli: Cli) -> str:
    files = [f for part in ("definitions", "applied") for f in sorted((cli.home / part).rglob("*")) if f.is_file()]
    whole = hashlib.sha256()
    for file in files:
        whole.update(str(file).encode() + file.read_bytes())
    return whole.hexdigest()


class Visitors(threading.Thread):
    """Clicks and views all along, one of each at a time; how many were acknowledged."""

    def __init__(self, url: str, page: str) -> None:
        super().__init__()
        self._url, self._page = url, page
        self.over = threading.Event()
        self.acknowledged, self.failed = 0, list[str]()

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self.over.wait(0.02):
                n = self.acknowledged
                events = [an_event(n, "click", self._page), an_event(n, "view", self._page)]
                answer = client.post("/v1/events", json={"events": events})
                if answer.status_code != 202 or answer.json()["rejected"]:
                    self.failed.append(answer.text)
                else:
                    self.acknowledged += 1


def test_own_feature_is_taken_live_and_no_event_is_lost(cli: Cli, gateway: httpx.Client, tmp_path: Path) -> None:
    before = feature_set(gateway)
    visitors = Visitors(cli.stack()["gateway"], "busy")
    visitors.start()
    try:
        wait_until(lambda: visitors.acknowledged > 20, "visits")
        done = cli.run("apply", str(written(tmp_path, "mine.yaml", OWN.format(name="most_viewed"))), "--json")
        assert done.returncode == 0, done.stderr
        taken = visitors.acknowledged
        wait_until(lambda: visitors.acknowledged > taken + 20, "visits afterwards")
    finally:
        visitors.over.set()
        visitors.join()

    told = json.loads(done.stdout)
    assert [(c["kind"], c["name"], c["change"]) for c in told["changes"]] == [("features", "most_viewed", "new")]
    assert told["taken_by"] == ["feature-worker-0", "feature-worker-1", "gateway-0"]
    assert feature_set(gateway) == told["feature_set_version"] != before
    assert visitors.failed == []
    clicks = [("i1", float(visitors.acknowledged))]
    wait_until(lambda: ranked(gateway, "top_ads_by_segment", "China%7Cmale%7Cbusy") == clicks, f"{clicks}", 90)
    for n in range(7):
        gateway.post("/v1/events", json={"events": [an_event(n, "view", "calm")]})
    wait_until(lambda: ranked(gateway, "most_viewed", "calm") == [("i1", 7.0)], "all views of the new feature", 90)


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        (
            "wrong.yaml",
            OWN.format(name="wrong").replace("[page_id]", "[colour]"),
            "wrong.yaml:4: by: no such column: colour",
        ),
        ("wrong.yaml", "feature: [\n", "wrong.yaml:2: "),
        ("wrong.yaml", "colour: red\n", "wrong.yaml:1: is no definition"),
        ("wrong.py", "from headrace_core.workflow import Workflow\n\nwith Workflow('w') as:\n", "wrong.py:3: "),
        ("wrong.py", "from headrace_core.workflow import *\nwith Workflow('w'):\n    BatchTask('t')\n", "wrong.py:3: "),
        ("wrong.py", "x = 1\n", "wrong.py:1: defines no workflow"),
    ],
)
def test_wrong_file_is_refused_by_its_line_and_nothing_is_changed(  # noqa: PLR0917  # a file and what is said of it
    cli: Cli, gateway: httpx.Client, tmp_path: Path, name: str, text: str, place: str
) -> None:
    before, version = digest(cli), feature_set(gateway)
    good = written(tmp_path, "good.yaml", OWN.format(name="beside_a_wrong_one"))

    done = cli.run("apply", str(good), str(written(tmp_path, name, text)))

    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"headrace: {tmp_path / place}")
    assert (digest(cli), feature_set(gateway)) == (before, version)


def test_model_that_reads_a_sequence_that_is_not_there_is_refused(cli: Cli, tmp_path: Path) -> None:
    text = (cli.home / "definitions" / "models" / "ctr.yaml").read_text(encoding="utf-8")
    wrong = text.replace("user.user_last_5_minutes[]", "user.nothing[]")

    done = cli.run("apply", str(written(tmp_path, "ctr.yaml", wrong)))

    assert done.returncode == 1
    assert re.match(
        rf"headrace: {tmp_path}/ctr.yaml:\d+: recent_items: no sequence is called nothing; there are: .*user_last_5_minutes",
        done.stderr,
    )


def test_invalid_file_written_by_hand_leaves_the_old_set_in_force(cli: Cli, gateway: httpx.Client) -> None:
    version, pids = feature_set(gateway), [cli.pid("gateway"), cli.pid("feature-worker")]
    file = cli.home / "definitions" / "features" / "by_hand.yaml"
    file.write_text(OWN.format(name="by_hand").replace("count", "colour"), encoding="utf-8")
    try:
        addresses = [p["metrics"] for p in cli.stack()["processes"] if p["service"] in {"gateway", "feature-worker"}]
        refused = re.compile(r'^headrace_definitions_refused_total\{kind="features"\} [1-9]', re.MULTILINE)
        wait_until(lambda: all(refused.search(httpx.get(f"{a}/metrics").text) for a in addresses), "all refuse it")

        gateway.post("/v1/events", json={"events": [an_event(1, "click", "by-hand")]})
        wait_until(lambda: bool(ranked(gateway, "top_ads_by_segment", "China%7Cmale%7Cby-hand")), "features go on")
    finally:
        file.unlink()

    assert feature_set(gateway) == version
    assert [cli.pid("gateway"), cli.pid("feature-worker")] == pids
    log = (cli.home / "logs" / "gateway-0.log").read_text(encoding="utf-8")
    assert len([line for line in log.splitlines() if f"{file}:6: " in line]) == 1


def test_workflow_is_applied_and_listed(cli: Cli, tmp_path: Path) -> None:
    text = """\
from headrace_core.workflow import BatchTask, Workflow, event

with Workflow("shop") as flow:
    BatchTask("say", run="echo {event.value}").start_on(event("shop"))
"""
    done = cli.run("apply", str(written(tmp_path, "shop.py", text)), "--json")

    assert [(c["name"], c["change"]) for c in json.loads(done.stdout)["changes"]] == [("shop", "new")]
    assert "shop" in [w["workflow"] for w in json.loads(cli.run("workflows", "list", "--json").stdout)]
    assert str(cli.home / "applied" / "workflows" / "shop.py") in cli.run("apply", "--list").stdout


def test_what_was_applied_stays_through_down_and_up_until_it_is_removed(cli: Cli, tmp_path: Path) -> None:
    def there() -> bool:
        listed = json.loads(cli.run("features", "list", "--json").stdout)
        return "to_stay" in [f["feature"] for f in listed["items"]]

    assert cli.run("apply", str(written(tmp_path, "x.yaml", OWN.format(name="to_stay")))).returncode == 0
    cli.run("down")
    cli.up("--only", "gateway", "--only", "feature-worker")

    after_up = there()
    with httpx.Client(base_url=cli.stack()["gateway"]) as gateway:
        answered = gateway.get("/v1/features/top/to_stay/p").status_code
    removed = cli.run("apply", "--remove", "features/to_stay")

    assert (after_up, answered, removed.returncode, there()) == (True, 200, 0, False)


def test_without_a_stack_it_is_said_so(tmp_path: Path) -> None:
    done = Cli(tmp_path / "nobody").run("apply", str(written(tmp_path, "x.yaml", OWN.format(name="x"))))

    assert done.returncode == 3
    assert "no stack runs in" in done.stderr
