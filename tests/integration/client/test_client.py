"""Both clients against a real gateway."""

import asyncio
import signal
from collections.abc import Iterator

import pytest
from headrace_client import (
    AsyncClient,
    Client,
    Event,
    EventsNotAcceptedError,
    InvalidError,
    Item,
    NoAnswerError,
    NotFoundError,
    Retries,
    TooLargeError,
    User,
)

from load_tests.gateway.process import GatewayProcess
from tests.conftest import Stores
from tests.integration.gateway.conftest import PATIENT
from tests.integration.gateway.world import events_by_id, now_ms, unique

pytestmark = pytest.mark.stack

#: Long enough for a busy machine.
PATIENT_CLIENT = Retries(patience_s=60)
AT_ONCE = Retries(patience_s=0)


@pytest.fixture(scope="module")
def own_gateway(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(stores.environment() | PATIENT, tmp_path_factory.mktemp("gateway"))
    process.start()
    try:
        yield process
    finally:
        process.stop()


def an_event(user: str, **fields: object) -> Event:
    told = {"event_id": unique("e"), "user_id": user, "event_time": now_ms(), "action": "click", "item_id": "2002"}
    return Event(**(told | fields))  # type: ignore[arg-type]  # fields by name


async def test_round_of_a_visitor(stores: Stores, own_gateway: GatewayProcess) -> None:
    user, items = unique("u"), [unique("i") for _ in range(3)]
    with Client(own_gateway.url, retries=PATIENT_CLIENT, timeout_s=30) as client:
        assert client.put_user(User(user_id=user, country="China", gender="male")) >= 0
        assert len(client.put_items(Item(item_id=i, item_type="ad", category="c") for i in items)) == 3

        ranking = client.rank(user, "100", items)
        result = client.send_events(
            an_event(
                user, event_id=f"{ranking.request_id}:{i.item_id}", action="impression", item_id=i.item_id,
                request_id=ranking.request_id, position=i.position,
            )
            for i in ranking.items
        )  # fmt: skip
        recommended = client.recommend(user, "100", count=2, item_type="ad")
        readiness = client.readiness()

    assert sorted(i.item_id for i in ranking.items) == sorted(items)
    assert (result.accepted, result.rejected) == (3, [])
    assert len(recommended.items) == 2
    assert readiness.status == "ready"
    found = await events_by_id(stores)
    event = found[f"{ranking.request_id}:{items[0]}"]
    assert (event.request_id, event.category, event.segment["country"]) == (ranking.request_id, "c", "China")


async def test_events_beyond_a_thousand_all_arrive_once(stores: Stores, own_gateway: GatewayProcess) -> None:
    user = unique("u")
    events = [an_event(user) for _ in range(2_300)]
    events[1_500].event_time = 1
    async with AsyncClient(own_gateway.url, retries=PATIENT_CLIENT, timeout_s=30) as client:
        result = await client.send_events(events)

    assert result.accepted == 2_299
    assert [r.index for r in result.rejected] == [1_500]
    found = await events_by_id(stores)
    assert {e.event_id for e in events if e is not events[1_500]} <= set(found)


def test_refusals_are_typed(own_gateway: GatewayProcess) -> None:
    with Client(own_gateway.url, retries=AT_ONCE, timeout_s=30) as client:
        with pytest.raises(InvalidError) as invalid:
            client.recommend("u", "100", count=1_000)
        with pytest.raises(TooLargeError):
            client.rank("u", "100", [f"i{n}" for n in range(501)])
        with pytest.raises(NotFoundError):
            client.ranked_list("nothing", ["a"])
        features = client.user_features("nobody")
        top = client.ranked_list("top_ads_by_segment", ["nowhere", "x|y", "100"])

    assert invalid.value.field == "count"
    assert features.items == []
    assert (top.key, top.items) == ("nowhere|x%7Cy|100", [])


async def test_calls_live_through_a_killed_gateway(stores: Stores, own_gateway: GatewayProcess) -> None:
    user = unique("u")
    events = [an_event(user) for _ in range(400)]
    async with AsyncClient(own_gateway.url, retries=PATIENT_CLIENT, timeout_s=30) as client:
        own_gateway.signal(signal.SIGKILL)
        own_gateway.wait(10)
        sending = [asyncio.create_task(client.send_events(events[n : n + 100])) for n in range(0, 400, 100)]
        ranking = asyncio.create_task(client.rank(user, "100", ["a", "b"]))
        await asyncio.wait([ranking], timeout=0.5)  # some tries meet nobody
        assert not ranking.done()
        await asyncio.to_thread(own_gateway.start)
        results = await asyncio.gather(*sending)
        ranked = await ranking

    assert sum(r.accepted for r in results) == 400
    assert len(ranked.items) == 2
    assert client.lost >= 5
    assert {e.event_id for e in events} <= set(await events_by_id(stores))


def test_nobody_there_is_told() -> None:
    with Client("http://127.0.0.1:9", retries=AT_ONCE) as client:
        with pytest.raises(NoAnswerError):
            client.recommend("u", "100")
        with pytest.raises(EventsNotAcceptedError) as caught:
            client.send_events([an_event("u"), an_event("u")])

    assert caught.value.missing == [0, 1]
