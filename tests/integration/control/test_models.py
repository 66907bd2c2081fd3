"""The model center: stages, and one deployed version whatever happens at once."""

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from headrace_core.control.client import ControlClient, ControlError, Parent

from tests.integration.control.eventually import eventually

if TYPE_CHECKING:
    from tests.integration.control.process import ControlPlane

pytestmark = pytest.mark.stack


async def a_version(client: ControlClient, model: str, *stages: str, **content: Any) -> int:
    """A registered version, moved through these stages."""
    version = await client.reserve_version(model)
    await client.register(model, version, f"file:///models/{model}/{version}", **content)
    for stage in stages:
        await client.move(model, version, stage, f"test wants {stage}")
    return version


async def kinds(client: ControlClient, model: str) -> list[tuple[str, str]]:
    """Type and value of the model's events, oldest first."""
    return [(event.type, event.value) for event in (await client.events(keys=[model], limit=5_000)).items]


async def test_version_goes_from_generated_to_deleted_and_each_step_is_told_once(client: ControlClient) -> None:
    version = await a_version(
        client, "life", metrics={"auc": 0.7, "nothing": float("nan")}, manifest={"a": [1]}, parent=Parent("base", 4)
    )

    for stage in ("VALIDATED", "DEPLOYED", "DEPRECATED", "DELETED"):
        await client.move("life", version, stage, f"to {stage}", details={"n": 1})
        await client.move("life", version, stage, "again")

    told = await client.version("life", version)
    stages = ["GENERATED", "VALIDATED", "DEPLOYED", "DEPRECATED", "DELETED"]
    assert (told.stage, told.parent, told.manifest) == ("DELETED", Parent("base", 4), {"a": [1]})
    assert told.metrics == {"auc": 0.7, "nothing": None}
    assert [change["stage"] for change in told.history] == stages
    assert [change["by"] for change in told.history[1:]] == ["test"] * 4
    assert await kinds(client, "life") == [(f"MODEL_{stage}", str(version)) for stage in stages]
    event = (await client.events(keys=["life"])).items[1]
    assert event.context == {
        "artifact": f"file:///models/life/{version}",
        "parent": {"model": "base", "version": 4},
        "why": "to VALIDATED",
        "by": "test",
        "track": "stable",
        "details": {"n": 1},
    }


@pytest.mark.parametrize(
    ("before", "step"),
    [
        ([], "DEPLOYED"),
        ([], "DELETED"),
        (["REJECTED"], "VALIDATED"),
        (["REJECTED"], "DEPLOYED"),
        (["VALIDATED"], "GENERATED"),
        (["VALIDATED"], "REJECTED"),
        (["VALIDATED", "DEPLOYED"], "VALIDATED"),
        (["VALIDATED", "DEPRECATED"], "DEPLOYED"),
    ],
)
async def test_step_that_is_not_allowed_is_refused(client: ControlClient, before: list[str], step: str) -> None:
    version = await a_version(client, "steps", *before)

    with pytest.raises(ControlError, match="what may follow") as refused:
        await client.move("steps", version, step, "test")

    assert refused.value.status == 409


async def test_registering_again_with_the_same_content_changes_nothing(client: ControlClient) -> None:
    version = await a_version(client, "same", "VALIDATED", metrics={"auc": 0.5})

    again = await client.register("same", version, f"file:///models/same/{version}", metrics={"auc": 0.5})

    assert again.stage == "VALIDATED"
    with pytest.raises(ControlError, match="another metrics"):
        await client.register("same", version, f"file:///models/same/{version}", metrics={"auc": 0.6})
    assert await kinds(client, "same") == [("MODEL_GENERATED", str(version)), ("MODEL_VALIDATED", str(version))]


async def test_number_that_was_not_reserved_is_refused(client: ControlClient) -> None:
    with pytest.raises(ControlError, match="not reserved"):
        await client.register("unreserved", 1, "file:///x")


async def test_reserved_numbers_are_given_once(client: ControlClient) -> None:
    numbers = await asyncio.gather(*(client.reserve_version("numbers") for _ in range(30)))

    assert sorted(numbers) == list(range(1, 31))


async def test_one_version_is_deployed_at_every_moment_while_many_want_to_be(
    client: ControlClient, make_control: Any, table: Any
) -> None:
    other: ControlPlane = make_control()
    other.start()
    versions = [await a_version(client, "swap", "VALIDATED") for _ in range(12)]
    await client.move("swap", versions[0], "DEPLOYED", "first")
    seen: list[int] = []
    done = asyncio.Event()

    async def look() -> None:
        while not done.is_set():
            seen.append(
                await table.fetchval(
                    "SELECT count(*) FROM control.versions WHERE model = 'swap' AND stage = 'DEPLOYED'"
                )
            )

    looking = asyncio.create_task(look())
    async with ControlClient(other.url, "second") as second:
        await asyncio.gather(
            *(
                (client, second)[n % 2].move("swap", version, "DEPLOYED", "all at once")
                for n, version in enumerate(versions)
            )
        )
    done.set()
    await looking

    assert set(seen) == {1}
    told = [kind for kind in await kinds(client, "swap") if kind[0] in {"MODEL_DEPLOYED", "MODEL_DEPRECATED"}]
    deployed = [version for kind, version in told if kind == "MODEL_DEPLOYED"]
    replaced = [version for kind, version in told if kind == "MODEL_DEPRECATED"]
    assert sorted(map(int, deployed)) == versions
    assert replaced == deployed[:-1]
    now = await client.deployed("swap")
    assert now is not None
    assert str(now.version) == deployed[-1]


async def test_tracks_have_a_deployed_version_each(client: ControlClient) -> None:
    stable, canary = [await a_version(client, "tracks", "VALIDATED") for _ in range(2)]
    await client.move("tracks", stable, "DEPLOYED", "test")

    await client.move("tracks", canary, "DEPLOYED", "test", track="canary")

    found = [await client.deployed("tracks"), await client.deployed("tracks", "canary")]
    assert [one.version if one else None for one in found] == [stable, canary]


async def test_nobody_deployed_is_none_and_unknown_is_404(client: ControlClient) -> None:
    assert await client.deployed("nobody") is None
    assert await client.versions("nobody") == []
    with pytest.raises(ControlError) as unknown:
        await client.version("nobody", 1)
    assert unknown.value.status == 404


async def test_metrics_over_time_are_replaced_not_doubled(client: ControlClient, http: Any) -> None:
    version = await a_version(client, "metrics")
    rows = [
        {"name": "auc", "value": value, "time": time, "slice": ""} for value, time in ((0.5, 2), (0.4, 1), (0.6, 2))
    ]

    await client.record_metrics("metrics", version, rows)
    await client.record_metrics("metrics", version, rows[-1:])

    items = (await http.get(f"/models/metrics/versions/{version}/metrics")).json()["items"]
    assert [(item["time"], item["value"]) for item in items] == [(1, 0.4), (2, 0.6)]


async def test_run_that_is_over_can_neither_register_nor_move(client: ControlClient, http: Any) -> None:
    flow = {
        "workflow": "tokens",
        "tasks": {
            "t": {"kind": "batch", "executor": "resident", "service": "nobody", "run": ["x"], "retries": 0, "backoff_ms": 1,
                  "concurrency": 1, "queue": "none", "catch_up": "none"}
        },
        "rules": [],
    }  # fmt: skip
    await http.post("/workflows", json=flow)
    run_id = (await http.post("/workflows/tokens/tasks/t/start")).json()["run_id"]
    token = await client.claim(run_id)
    assert token is not None
    version = await a_version(client, "tokens", run=token)
    await client.move("tokens", version, "VALIDATED", "test", run=token)
    await client.finish(run_id, token, "SUCCEEDED")

    late = await client.reserve_version("tokens")

    with pytest.raises(ControlError, match="no longer, good"):
        await client.register("tokens", late, "file:///late", run=token)
    with pytest.raises(ControlError, match="no longer, good"):
        await client.move("tokens", version, "DEPLOYED", "late", run=token)
    assert (await client.version("tokens", version)).stage == "VALIDATED"
    await eventually(lambda: client.runs(workflow="tokens", status="SUCCEEDED"), "the run is over")
