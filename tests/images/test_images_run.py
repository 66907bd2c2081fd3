"""Images: they are as small as is told, and run the platform as the chart runs them, on the embedded stores."""

import asyncio
import json
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from headrace_core.web.keys import entry, new_key
from headrace_stack import tail
from headrace_stack.images.docker import docker
from headrace_stack.layout import Layout
from headrace_stack.locks import IMAGES
from headrace_stack.ports import PortBook

from tests.charts.helm import CHART, ROOT, Manifest, template, workloads
from tests.conftest import Stores
from tests.images.engine import running_engine
from tests.images.pods import Pod, config
from tests.integration.stack_cli import answers, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.long, pytest.mark.timeout(1_500)]

#: Megabytes of an image, its base included.
MOST: Final = {
    "gateway": 250, "feature-worker": 190, "sample-joiner": 180, "control-plane": 250, "model-validator": 235,
    "trainer": 2_000, "model-server": 2_000,
}  # fmt: skip
SERVICES: Final = ("control-plane", "feature-worker", "sample-joiner", "gateway")
#: Of the story: a short attribution window, and nobody is waited for that comes late.
QUICK: Final = {"lateness_ms": 1_000, "idle_after_ms": 500}
VALUES: Final = {
    "jobs.executor": "none",
    "featureWorker.settings": QUICK,
    "sampleJoiner.settings": QUICK | {"attribution_window_ms": 8_000, "joined_mark_ms": 2_000},
}
#: What only the build needs; TensorFlow asks for setuptools and wheel.
TOOLS: Final = ("pip", "hatchling")
#: Trains, exports and loads a model, so that the libraries which the build stripped are used.
TRAINS: Final = """
import numpy as np, tensorflow as tf
layers = [tf.keras.layers.Input((4,)), tf.keras.layers.Dense(8, activation="relu"), tf.keras.layers.Dense(1)]
model = tf.keras.Sequential(layers)
model.compile("adam", "mse")
x = np.random.default_rng(1).random((64, 4), dtype="float32")
model.fit(x, x.sum(1), verbose=0)
model.export("/tmp/model/1", verbose=False)
loaded = tf.saved_model.load("/tmp/model/1")
print(loaded.serve(x[:2]).shape)
"""
IMPORTS: Final = """
import importlib, pathlib, sys
package = importlib.import_module(sys.argv[1])
root = pathlib.Path(package.__file__).parent
for file in sorted(root.rglob("*.py")):
    parts = [package.__name__, *file.relative_to(root).with_suffix("").parts]
    importlib.import_module(".".join(parts).removesuffix(".__init__"))
import headrace_core.control.run
"""


@pytest.fixture(scope="module")
def sizes() -> Iterator[dict[str, dict[str, Any]]]:
    """All images, built by the command that people use; what it told."""
    build = [sys.executable, "-m", "headrace_stack.images", "--base", "debian", "--network", "host"]
    with running_engine():
        done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout)


def inside(image: str, *command: str) -> str:
    """Run a command in an image as its pods are run."""
    return docker(
        "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL",  # noqa: S108
        "--security-opt", "no-new-privileges", "--entrypoint", command[0], image, *command[1:],
    )  # fmt: skip


@pytest.mark.parametrize("service", IMAGES)
def test_image_is_small(sizes: dict[str, dict[str, Any]], service: str) -> None:
    assert sizes[service]["mb"] <= MOST[service]


@pytest.mark.parametrize("service", IMAGES)
def test_image_runs_by_itself_as_nobody(sizes: dict[str, dict[str, Any]], service: str) -> None:
    told = config(sizes[service]["image"])

    assert told["User"] == "10001:10001"
    assert told["Entrypoint"] == ["headrace-service"]
    assert {line.split("=")[0] for line in told["Env"]} == {
        "PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "HEADRACE_DEFINITIONS", "USER", "HOME"
    }  # fmt: skip


@pytest.mark.parametrize("service", IMAGES)
def test_every_module_of_the_service_imports_in_its_image(sizes: dict[str, dict[str, Any]], service: str) -> None:
    inside(sizes[service]["image"], "python", "-c", IMPORTS, f"headrace_{service.replace('-', '_')}")


@pytest.mark.parametrize("service", IMAGES)
def test_image_holds_no_tools_of_the_build(sizes: dict[str, dict[str, Any]], service: str) -> None:
    asked = f"import importlib.util as u; print([n for n in {TOOLS!r} if u.find_spec(n)])"

    assert inside(sizes[service]["image"], "python", "-c", asked).strip() == "[]"


@pytest.mark.parametrize("service", IMAGES)
def test_image_has_the_commands_that_the_chart_runs(sizes: dict[str, dict[str, Any]], service: str) -> None:
    image = sizes[service]["image"]
    commands = {
        pod.container["command"][0]
        for pod in (Pod(name, workload, {}) for name, workload in workloads(template(CHART)))
        if pod.image == image
    }

    assert commands
    for command in {*commands, "headrace-service"}:
        assert inside(image, "sh", "-c", f"command -v {command}").strip() == f"/opt/headrace/venv/bin/{command}"


def test_trainer_trains_exports_and_loads(sizes: dict[str, dict[str, Any]]) -> None:
    assert inside(sizes["trainer"]["image"], "python", "-c", TRAINS).splitlines()[-1] == "(2, 1)"


@dataclass
class Platform:
    """The services as containers.

    Attributes:
        pods: by service.
        ports: of their probes.
        kafka, postgres: where the stores are.
        key: of an API caller with every scope.
        init: what each run of the init Job printed.
    """

    pods: dict[str, Pod]
    ports: dict[str, int]
    kafka: str
    postgres: str
    key: str
    init: list[str] = field(default_factory=list)

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.ports['gateway']}", headers=headers, timeout=30)

    def rows(self, request_id: str) -> list[tuple[Any, ...]]:
        """Item, label and version of a request's samples."""
        with psycopg.connect(self.postgres) as connection:
            asked = "SELECT item_id, label, version FROM samples.current WHERE request_id = %s ORDER BY item_id"
            return connection.execute(asked, (request_id,)).fetchall()

    def is_ready(self, service: str) -> bool:
        try:
            return answers(f"http://127.0.0.1:{self.ports[service]}/readyz") == 200
        except OSError:
            return False


async def _remove_topics(kafka: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.delete_topics([name for name in await admin.list_topics() if not name.startswith("__")])
    finally:
        await admin.close()


def empty_stores(stores: Stores) -> str:
    """Take away what the stack's own start has made, so that the init Job makes it; DSN of an empty database."""
    asyncio.run(_remove_topics(stores.kafka_address))
    with psycopg.connect(stores.postgres_dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE images")
    return stores.postgres_dsn.rpartition("/")[0] + "/images"


def write_files(folder: Path, job: Manifest, key: str, postgres: str, redis: str) -> dict[str, Path]:
    """Files as the chart's secrets and ConfigMap have them, by volume."""
    files = {
        "secrets/HEADRACE_POSTGRES": postgres, "secrets/HEADRACE_REDIS": redis,
        "secrets/HEADRACE_CONSOLE_SECRET": secrets.token_hex(32), "api-key/key": key,
        "api-keys/services": entry("services", ["admin"], key) + "\n", "job-template/job-template.yaml": json.dumps(job),
    }  # fmt: skip
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.parent.chmod(0o755)
        file.write_text(text, encoding="utf-8")
        file.chmod(0o444)
    return {name: folder / name for name in ("secrets", "api-key", "api-keys", "job-template")}


@pytest.fixture(scope="module")
def platform(
    sizes: dict[str, dict[str, Any]], own_stores: Stores, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("images")
    postgres, key = empty_stores(own_stores), new_key()
    layout = Layout(folder / "home")
    layout.make()
    ports = PortBook(layout.ports, layout.home).choose(list(SERVICES), {})
    told = {
        "HEADRACE_KAFKA": own_stores.kafka_address,
        "HEADRACE_CONTROL": f"http://127.0.0.1:{ports['control-plane']}",
        "HEADRACE_MODEL_SERVER": "127.0.0.1:1",
        "HEADRACE_REPLICA": "images",
    }
    port = {"gateway": "HEADRACE_GATEWAY_PORT", "control-plane": "HEADRACE_CONTROL_PORT"}
    values = [part for name, value in VALUES.items() for part in ("--set-json", f"{name}={json.dumps(value)}")]
    chart = dict(workloads(template(CHART, "-f", CHART / "values-small.yaml", *values)))
    files = write_files(folder, chart["run"], key, postgres, own_stores.redis_url)
    run = f"headrace-test-{uuid.uuid4().hex[:8]}"
    pods = {
        service: Pod(
            f"{run}-{service}", chart[service], files,
            told | {port.get(service, "HEADRACE_METRICS_PORT"): str(ports.get(service, 0))},
        )
        for service in ("init", *SERVICES)
    }  # fmt: skip
    up = Platform(
        {name: pod for name, pod in pods.items() if name != "init"}, ports, own_stores.kafka_address, postgres, key
    )
    assert {pod.image for pod in pods.values()} <= {told["image"] for told in sizes.values()}
    up.init = [pods["init"].run() for _ in range(2)]
    try:
        for service in SERVICES:
            up.pods[service].start()
        for service in SERVICES:
            _wait(lambda service=service: up.is_ready(service), up, service)  # type: ignore[misc]
        yield up
    finally:
        for pod in up.pods.values():
            pod.remove()


def _wait(condition: Callable[[], bool], up: Platform, what: str) -> None:
    try:
        wait_until(condition, what)
    except TimeoutError as error:
        logs = "\n".join(f"--- {name}\n{pod.log()}" for name, pod in up.pods.items())
        raise AssertionError(f"{error}\n{logs}") from None


@dataclass
class Story:
    """What a visitor saw, in order.

    Attributes:
        statuses: of catalog and events.
        top: the list of his segment's ads.
        ranked: an answer of rank.
        clicked, ignored, corrected: item, label and version of his samples.
        changes: of the sample that he clicked late, as samples.v1 tells them.
        accounts: impressions, joined, positive, negative, orphaned, duplicate, pending.
    """

    statuses: list[int] = field(default_factory=list)
    top: list[tuple[str, float]] = field(default_factory=list)
    ranked: dict[str, Any] = field(default_factory=dict)
    clicked: list[tuple[Any, ...]] = field(default_factory=list)
    ignored: list[tuple[Any, ...]] = field(default_factory=list)
    corrected: list[tuple[Any, ...]] = field(default_factory=list)
    changes: list[tuple[str, int, int]] = field(default_factory=list)
    accounts: tuple[int, ...] = ()


@pytest.fixture(scope="module")
def story(platform: Platform) -> Story:
    told = Story()
    with platform.client() as client:

        def event(action: str, item: str, request_id: str = "") -> None:
            one = {
                "event_id": str(uuid.uuid4()), "user_id": "u1", "event_time": int(time.time() * 1000), "action": action,
                "item_id": item, "item_type": "ad", "page_id": "100", "request_id": request_id,
            }  # fmt: skip
            told.statuses.append(client.post("/v1/events", json={"events": [one]}).status_code)

        def top() -> bool:
            answer = client.get("/v1/features/top/top_ads_by_segment/China%7Cmale%7C100")
            if answer.status_code == 200:
                told.top = [(item["item_id"], item["score"]) for item in answer.json()["items"]]
            return told.top == [("ad2", 2.0), ("ad1", 1.0)]

        def rank() -> dict[str, Any]:
            body = {"user_id": "u1", "page_id": "100", "candidates": ["ad1", "ad2", "ad3"]}
            answer: dict[str, Any] = client.post("/v1/rank", json=body).raise_for_status().json()
            return answer

        user = {"country": "China", "gender": "male", "city": "Hangzhou"}
        told.statuses.append(client.put("/v1/users/u1", json=user).status_code)
        for n in (1, 2, 3):
            item = {"item_type": "ad", "category": "sport", "title": f"Ad number {n}"}
            told.statuses.append(client.put(f"/v1/items/ad{n}", json=item).status_code)
        for ad in ("ad2", "ad1", "ad2"):
            event("click", ad)
        _wait(top, platform, "the list of most clicked ads")

        told.ranked = rank()
        clicked, ignored = told.ranked["request_id"], rank()["request_id"]
        event("impression", "ad1", clicked)
        event("impression", "ad1", ignored)
        event("click", "ad1", clicked)
        _wait(lambda: bool(platform.rows(clicked)), platform, "a positive sample")
        told.clicked = platform.rows(clicked)
        _wait(lambda: bool(platform.rows(ignored)), platform, "a negative sample")
        told.ignored = platform.rows(ignored)
        event("click", "ad1", ignored)
        _wait(lambda: platform.rows(ignored) != told.ignored, platform, "a correction")
        told.corrected = platform.rows(ignored)

    def changes() -> bool:
        found = tail.changes(platform.kafka, ignored)
        told.changes = [(c["operation"], c["previous_label"], c["sample"]["label"]) for c in found]
        return len(found) == 2

    _wait(changes, platform, "a correction on samples.v1")
    with psycopg.connect(platform.postgres) as connection:
        names = ("impressions", "joined", "positive", "negative", "orphaned", "duplicate", "pending")
        asked = f"SELECT {', '.join(f'sum({name})::int' for name in names)} FROM samples.accounting"
        told.accounts = connection.execute(asked).fetchone() or ()
    return told


def test_init_job_makes_topics_and_tables_and_may_run_twice(platform: Platform) -> None:
    assert "behavior-events.v1" in platform.init[0]
    assert "behavior-events.v1" not in platform.init[1]


def test_catalog_and_events_are_accepted(story: Story) -> None:
    assert set(story.statuses) == {202}


def test_list_of_most_clicked_ads_follows(story: Story) -> None:
    assert story.top == [("ad2", 2.0), ("ad1", 1.0)]


def test_answer_says_that_no_model_serves(story: Story) -> None:
    assert {item["item_id"] for item in story.ranked["items"]} == {"ad1", "ad2", "ad3"}
    assert story.ranked["model_version"] == 0
    assert "no_model" in story.ranked["degraded"]


def test_clicked_impression_is_positive_and_ignored_one_negative_after_the_window(story: Story) -> None:
    assert story.clicked == [("ad1", 1, 1)]
    assert story.ignored == [("ad1", 0, 1)]


def test_late_click_corrects_in_table_and_stream(story: Story) -> None:
    assert story.corrected == [("ad1", 1, 2)]
    assert story.changes == [("OPERATION_INSERT", 0, 0), ("OPERATION_CORRECT", 0, 1)]


def test_every_impression_is_accounted_for(story: Story) -> None:
    assert story.accounts == (2, 2, 2, 0, 0, 0, 0)


def test_without_a_key_nothing_is_answered(platform: Platform) -> None:
    answer = httpx.get(f"http://127.0.0.1:{platform.ports['gateway']}/v1/features/users/u1")

    assert answer.status_code == 401


@pytest.mark.usefixtures("story")
@pytest.mark.parametrize("service", SERVICES)
def test_nothing_is_written_but_to_what_is_mounted(platform: Platform, service: str) -> None:
    pod = platform.pods[service]
    places = {str(above) for path in pod.mounts() for above in (Path(path), *Path(path).parents)}

    assert pod.changed() <= places


@pytest.mark.usefixtures("story")
@pytest.mark.parametrize("service", SERVICES[::-1])
def test_sigterm_ends_the_service_in_good_order(platform: Platform, service: str) -> None:
    pod = platform.pods[service]

    assert pod.stop() == 0, pod.log()
