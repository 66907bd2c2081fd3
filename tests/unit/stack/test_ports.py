"""Which ports a stack takes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from headrace_stack.layout import StackError
from headrace_stack.ports import PortBook, given_ports

NAMES = ("kafka", "kafka-controller", "gateway-0", "sample-joiner-0", "sample-joiner-1")


def a_book(folder: Path, home: str = "/home/one", is_free: Callable[[int], bool] = lambda _: True) -> PortBook:
    return PortBook(folder / "ports.json", Path(home), is_free)


def test_each_part_gets_a_port_of_its_own_below_the_ephemeral_range(tmp_path: Path) -> None:
    ports = a_book(tmp_path).choose(NAMES, {})

    assert set(ports) == set(NAMES)
    assert len(set(ports.values())) == len(NAMES)
    assert all(20_000 <= port < 32_768 for port in ports.values())


def test_ports_are_the_same_at_the_next_start(tmp_path: Path) -> None:
    first = a_book(tmp_path).choose(NAMES, {})

    assert a_book(tmp_path).choose(NAMES, {}) == first


def test_only_the_port_that_was_taken_meanwhile_changes(tmp_path: Path) -> None:
    first = a_book(tmp_path).choose(NAMES, {})
    taken = first["gateway-0"]

    second = a_book(tmp_path, is_free=lambda port: port != taken).choose(NAMES, {})

    assert {name for name in NAMES if first[name] != second[name]} == {"gateway-0"}
    assert len(set(second.values())) == len(NAMES)


def test_ports_of_other_parts_stay_known_when_a_start_leaves_them_out(tmp_path: Path) -> None:
    first = a_book(tmp_path).choose(NAMES, {})

    a_book(tmp_path).choose(["kafka"], {})

    assert a_book(tmp_path).choose(NAMES, {}) == first


def test_two_homes_begin_at_different_ports(tmp_path: Path) -> None:
    one = PortBook(tmp_path / "one.json", Path("/home/one"), lambda _: True).choose(NAMES, {})
    two = PortBook(tmp_path / "two.json", Path("/home/two"), lambda _: True).choose(NAMES, {})

    assert not set(one.values()) & set(two.values())


def test_asked_port_goes_before_the_known_one(tmp_path: Path) -> None:
    known = a_book(tmp_path).choose(NAMES, {})

    asked = a_book(tmp_path).choose(NAMES, {"HEADRACE_PORT_GATEWAY": "8080"})

    assert asked == known | {"gateway-0": 8080}


def test_port_known_for_one_part_and_asked_for_another_moves(tmp_path: Path) -> None:
    known = a_book(tmp_path).choose(NAMES, {})

    asked = a_book(tmp_path).choose(NAMES, {"HEADRACE_PORT_GATEWAY": str(known["kafka"])})

    assert asked["gateway-0"] == known["kafka"]
    assert asked["kafka"] != known["kafka"]


@pytest.mark.parametrize(
    ("variable", "part"),
    [
        ("HEADRACE_PORT_KAFKA", "kafka"),
        ("HEADRACE_PORT_KAFKA_CONTROLLER", "kafka-controller"),
        ("HEADRACE_PORT_GATEWAY", "gateway-0"),
        ("HEADRACE_GATEWAY_PORT", "gateway-0"),
        ("HEADRACE_PORT_SAMPLE_JOINER", "sample-joiner-0"),
        ("HEADRACE_PORT_SAMPLE_JOINER_1", "sample-joiner-1"),
    ],
)
def test_variable_names_the_part(variable: str, part: str) -> None:
    assert given_ports({variable: "1234"}, NAMES) == {part: 1234}


@pytest.mark.parametrize("text", ["many", "0", "65536", "-1", "80.5"])
def test_what_is_no_port_is_refused_by_name(text: str) -> None:
    with pytest.raises(StackError, match=f"HEADRACE_PORT_GATEWAY={text}: want a port"):
        given_ports({"HEADRACE_PORT_GATEWAY": text}, NAMES)


def test_one_port_for_two_parts_is_refused() -> None:
    with pytest.raises(StackError, match="HEADRACE_PORT_GATEWAY=1234: another part"):
        given_ports({"HEADRACE_PORT_GATEWAY": "1234", "HEADRACE_PORT_KAFKA": "1234"}, NAMES)


def test_taken_asked_port_is_told(tmp_path: Path) -> None:
    book = a_book(tmp_path, is_free=lambda port: port != 8080)

    with pytest.raises(StackError, match="port 8080 for gateway-0 is taken: free it, or unset HEADRACE_PORT_GATEWAY"):
        book.choose(NAMES, {"HEADRACE_PORT_GATEWAY": "8080"})
