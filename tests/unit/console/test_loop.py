import itertools
from xml.etree import ElementTree as ET

import pytest
from headrace_control_plane.console.figures import Change, flow, picture, state
from headrace_control_plane.console.loop import EDGES, NODES, Layout, narrow, svg, wide
from headrace_control_plane.console.rates import Window
from headrace_control_plane.console.scrape import Look, Target
from headrace_core.control.records import Event

LAYOUTS = pytest.mark.parametrize("layout", [wide(), narrow()], ids=lambda layout: layout.name)
WIDTH, HEIGHT = 158, 64
NOW = 1_000_000_000


def an_event(offset: int, kind: str, value: str = "7", age_ms: int = 1_000) -> Event:
    return Event(offset, "ctr", value, kind, offset, "default", "control-plane", NOW - age_ms)


def a_look(service: str, replica: int = 0, fault: str | None = None) -> Look:
    return Look(Target(f"{service}-{replica}", service, "http://there/metrics"), fault)


@LAYOUTS
def test_every_part_has_a_place_of_its_own_inside_the_drawing(layout: Layout) -> None:
    assert set(layout.places) == {node.key for node in NODES}
    for x, y in layout.places.values():
        assert 0 <= x <= layout.width - WIDTH
        assert 0 <= y <= layout.height - HEIGHT
    for (ax, ay), (bx, by) in itertools.combinations(layout.places.values(), 2):
        assert abs(ax - bx) >= WIDTH or abs(ay - by) >= HEIGHT


@LAYOUTS
def test_edges_run_straight_from_border_to_border_and_through_nobody(layout: Layout) -> None:
    assert set(layout.paths) == {edge.key for edge in EDGES}
    for edge in EDGES:
        corners = layout.paths[edge.key].corners
        assert _on_border(layout.places[edge.start], corners[0]), edge.key
        assert _on_border(layout.places[edge.end], corners[-1]), edge.key
        for (ax, ay), (bx, by) in itertools.pairwise(corners):
            assert ax == bx or ay == by, edge.key
            on_the_way = [(ax + (bx - ax) * n / 50, ay + (by - ay) * n / 50) for n in range(51)]
            crossed = [key for key, place in layout.places.items() if any(_inside(place, at) for at in on_the_way)]
            assert crossed == [], edge.key


@LAYOUTS
def test_the_drawing_is_well_formed_and_has_everything_that_changes(layout: Layout) -> None:
    root = ET.fromstring(svg(layout))  # noqa: S314  # our own drawing

    keys = {element.get("data-k") for element in root.iter() if element.get("data-k")}
    assert keys == set(picture(Window(), [], [], NOW))
    links = [element.get("href") for element in root.iter("{http://www.w3.org/2000/svg}a")]
    assert set(links) == {node.link for node in NODES if node.link}


@pytest.mark.parametrize(
    ("faults", "expected"),
    [([], "unknown"), ([None, None], "up"), ([None, "gone"], "partly"), (["gone", "gone"], "away")],
)
def test_a_part_is_as_its_replicas_are(faults: list[str | None], expected: str) -> None:
    looks = [a_look("sample-joiner", n, fault) for n, fault in enumerate(faults)]

    assert state([*looks, a_look("gateway", 0, "gone")], ("sample-joiner",)) == expected


@pytest.mark.parametrize(
    ("rate", "expected"), [(None, "idle"), (0.0, "idle"), (0.1, "slow"), (20, "brisk"), (900, "fast")]
)
def test_more_flows_faster(rate: float | None, expected: str) -> None:
    assert flow(rate) == expected


def test_versions_of_the_last_minutes_are_told_from_events() -> None:
    events = [
        an_event(1, "MODEL_GENERATED", "5", age_ms=3_600_000),
        an_event(2, "MODEL_GENERATED", "6"),
        an_event(3, "MODEL_REJECTED", "6"),
        an_event(4, "MODEL_GENERATED", "7"),
        an_event(5, "MODEL_VALIDATED", "7"),
        an_event(6, "MODEL_DEPLOYED", "7"),
    ]

    drawn = picture(Window(), [], events, NOW)

    assert drawn["label:generated"] == Change("0.2/min")
    assert drawn["edge:generated"].state == "slow"
    assert drawn["told:validator"].text == "1 passed, 1 rejected"
    assert drawn["told:deployer"].text == "ctr 7"


def test_a_store_or_a_service_that_is_away_says_so() -> None:
    drawn = picture(Window(), [a_look("gateway", fault="no answer")], [], NOW, store_away=True)

    assert drawn["node:gateway"].state == drawn["node:versions"].state == "away"
    assert drawn["told:gateway"].text == "away"


def _on_border(place: tuple[float, float], point: tuple[float, float]) -> bool:
    (x, y), (px, py) = place, point
    beside = px in {x, x + WIDTH} and y <= py <= y + HEIGHT
    return beside or (py in {y, y + HEIGHT} and x <= px <= x + WIDTH)


def _inside(place: tuple[float, float], point: tuple[float, float]) -> bool:
    return place[0] < point[0] < place[0] + WIDTH and place[1] < point[1] < place[1] + HEIGHT
