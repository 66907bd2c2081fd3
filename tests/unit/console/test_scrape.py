import json
from pathlib import Path

import pytest
from headrace_control_plane.console.scrape import Target, TargetsError, parse, targets_of, with_gone

STACK = {
    "processes": [
        {"service": "kafka", "replica": 0, "pid": 7},
        {"service": "sample-joiner", "replica": 1, "pid": 8, "metrics": "http://127.0.0.1:9"},
    ]
}


def test_targets_are_the_processes_of_a_stack(tmp_path: Path) -> None:
    file = tmp_path / "stack.json"
    file.write_text(json.dumps(STACK))

    assert targets_of(str(file)) == [
        Target("kafka-0", "kafka", "", 7),
        Target("sample-joiner-1", "sample-joiner", "http://127.0.0.1:9/metrics", 8),
    ]


def test_targets_are_urls_with_or_without_a_name() -> None:
    assert targets_of(
        "http://trainer.headrace.svc:9100, gateway=http://10.0.0.1:8080/m, gateway=http://10.0.0.2:8080"
    ) == [
        Target("trainer-0", "trainer", "http://trainer.headrace.svc:9100/metrics"),
        Target("gateway-0", "gateway", "http://10.0.0.1:8080/m"),
        Target("gateway-1", "gateway", "http://10.0.0.2:8080/metrics"),
    ]


@pytest.mark.parametrize("content", ["", "[]", '{"processes": [{}]}', '{"processes": 3}', "\x00"])
def test_a_file_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "stack.json"
    file.write_text(content)

    with pytest.raises(TargetsError, match="can't be read"):
        targets_of(str(file))


def test_a_stack_that_is_down_is_told() -> None:
    with pytest.raises(TargetsError, match="no stack is up"):
        targets_of("/nowhere/stack.json")


def test_a_process_that_left_the_file_is_gone_and_forgotten_after_a_while() -> None:
    gateway, joiner = Target("gateway-0", "gateway", "http://g/metrics", 1), Target("joiner-0", "joiner", "http://j", 2)
    seen: dict[str, tuple[Target, float]] = {}

    assert with_gone(seen, [gateway, joiner], 0.0) == [gateway, joiner]
    assert with_gone(seen, [gateway], 10.0) == [gateway, Target("joiner-0", "joiner", "", None)]
    assert with_gone(seen, [gateway, joiner], 20.0) == [gateway, joiner]
    assert with_gone(seen, [gateway], 10_000.0) == [gateway]


def test_only_the_platform_s_own_metrics_are_read() -> None:
    page = parse(
        "# HELP python_gc Things\n# TYPE python_gc counter\npython_gc_total 3\n"
        "# HELP headrace_events_total Told.\n# TYPE headrace_events_total counter\n"
        'headrace_events_total{topic="a b\\n",service="x"} 4\n'
    )

    assert page == {("headrace_events_total", (("service", "x"), ("topic", "a b\n"))): 4.0}
