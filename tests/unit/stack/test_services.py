"""What the stack tells its services."""

from pathlib import Path

import pytest
from headrace_core.definitions.features import load_features
from headrace_core.workflow import compile_file
from headrace_stack.layout import Layout, checkout
from headrace_stack.services import (
    PROFILES,
    SERVICES,
    addresses,
    lay_definitions,
    service_names,
    service_part,
    settings,
)

LAYOUT = Layout(Path("/home/one"))
PORTS = {
    "kafka": 1, "postgres": 2, "valkey": 3, "gateway-0": 4, "gateway-1": 5, "control-plane-0": 6, "model-server-0": 7,
    "model-server-0-api": 8,
}  # fmt: skip


def test_demo_profile_shortens_the_window() -> None:
    told = settings(LAYOUT, "demo", addresses(LAYOUT, PORTS, {}), {})

    assert told["HEADRACE_ATTRIBUTION_WINDOW_MS"] == "20000"


@pytest.mark.parametrize("profile", PROFILES)
def test_environment_goes_before_the_profile(profile: str) -> None:
    given = {name: "123" for values in PROFILES.values() for name in values} | {"HEADRACE_LOG_LEVEL": "DEBUG"}

    told = settings(LAYOUT, profile, addresses(LAYOUT, PORTS, given), given | {"PATH": "/bin"})

    assert {name: told[name] for name in given} == given
    assert "PATH" not in told


def test_services_are_told_the_stacks_own_stores() -> None:
    told = settings(LAYOUT, "default", addresses(LAYOUT, PORTS, {}), {})

    assert told["HEADRACE_KAFKA"] == "127.0.0.1:1"
    assert told["HEADRACE_POSTGRES"] == "postgresql://headrace@127.0.0.1:2/headrace"
    assert told["HEADRACE_REDIS"] == "redis://127.0.0.1:3/0"
    assert told["HEADRACE_LAKE"] == "file:///home/one/data/lake"


@pytest.mark.parametrize(
    ("variable", "key", "value"),
    [
        ("HEADRACE_KAFKA", "kafka", "kafka.example:9092"),
        ("HEADRACE_POSTGRES", "postgres", "postgresql://db.example/headrace"),
        ("HEADRACE_REDIS", "redis", "redis://cache.example/0"),
        ("HEADRACE_LAKE", "lake", "s3://lake"),
    ],
)
def test_store_of_the_callers_own_replaces_the_embedded_one(variable: str, key: str, value: str) -> None:
    where = addresses(LAYOUT, PORTS, {variable: value})

    assert where[key] == value
    assert settings(LAYOUT, "default", where, {variable: value})[variable] == value


def test_relative_folder_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    told = settings(LAYOUT, "default", addresses(LAYOUT, PORTS, {}), {"HEADRACE_DEFINITIONS": "mine"})

    assert told["HEADRACE_DEFINITIONS"] == str(tmp_path / "mine")


def test_gateway_address_is_the_first_replicas() -> None:
    assert addresses(LAYOUT, PORTS, {})["gateway"] == "http://127.0.0.1:4"


def test_replicas_have_names_ports_and_replica_numbers_of_their_own() -> None:
    names = service_names(("gateway",), {"gateway": 2})

    parts = [service_part(name, PORTS, {}) for name in names]

    assert [part.name for part in parts] == ["gateway-0", "gateway-1"]
    assert [part.environment["HEADRACE_REPLICA"] for part in parts] == ["0", "1"]
    assert [part.environment["HEADRACE_GATEWAY_PORT"] for part in parts] == ["4", "5"]
    assert [part.metrics for part in parts] == ["http://127.0.0.1:4", "http://127.0.0.1:5"]


def test_model_server_listens_on_a_second_port_that_everybody_is_told() -> None:
    where = addresses(LAYOUT, PORTS, {})

    part = service_part("model-server-0", PORTS, settings(LAYOUT, "default", where, {}))

    assert where["model_server"] == part.environment["HEADRACE_MODEL_SERVER"] == "127.0.0.1:8"
    assert (part.environment["HEADRACE_MODEL_SERVER_PORT"], part.port) == ("8", 7)


def test_control_plane_shows_its_metrics_where_it_answers() -> None:
    where = addresses(LAYOUT, PORTS, {})

    part = service_part("control-plane-0", PORTS, settings(LAYOUT, "default", where, {}))

    assert where["control"] == part.metrics == part.environment["HEADRACE_CONTROL"] == "http://127.0.0.1:6"
    assert part.environment["HEADRACE_CONTROL_PORT"] == "6"


def test_definitions_of_a_profile_lie_over_the_shipped_ones(tmp_path: Path) -> None:
    layout = Layout(tmp_path)

    lay_definitions(layout, "demo")

    shipped = {f.name: f for f in load_features(checkout() / "definitions" / "features")}
    laid = {f.name: f for f in load_features(layout.definitions / "features")}
    assert laid.keys() == shipped.keys()
    assert laid["top_ads_by_segment"].window_ms < shipped["top_ads_by_segment"].window_ms
    assert laid["user_last_5_minutes"].definition == shipped["user_last_5_minutes"].definition
    assert settings(layout, "demo", {}, {})["HEADRACE_DEFINITIONS"] == str(layout.definitions)


def test_flow_of_the_demo_is_the_shipped_one_but_for_when_a_base_is_trained(tmp_path: Path) -> None:
    layout = Layout(tmp_path)

    lay_definitions(layout, "demo")

    (shipped,) = compile_file(checkout() / "definitions" / "workflows" / "realtime_recommender.py")
    (laid,) = compile_file(layout.definitions / "workflows" / "realtime_recommender.py")
    different = [mine["rule"] for mine, other in zip(laid["rules"], shipped["rules"], strict=True) if mine != other]
    assert laid | {"rules": shipped["rules"]} == shipped
    assert different == ["train_base.start"]
    assert laid["rules"][0]["when"]["n"] == 18


def test_service_without_told_workers_has_one() -> None:
    assert service_names(tuple(SERVICES), {}) == [f"{service}-0" for service in SERVICES]
