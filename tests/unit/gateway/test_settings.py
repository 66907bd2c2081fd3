from datetime import timedelta

import pytest
from headrace_gateway.settings import GatewaySettings
from pydantic import ValidationError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("7d", timedelta(days=7)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("10s", timedelta(seconds=10)),
        ("500ms", timedelta(milliseconds=500)),
    ],
)
def test_durations_are_read_as_people_write_them(monkeypatch: pytest.MonkeyPatch, text: str, meant: timedelta) -> None:
    monkeypatch.setenv("HEADRACE_MAX_EVENT_AGE", text)

    assert GatewaySettings().max_event_age == meant


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_EVENT_AGE", "a week"),
        ("MAX_EVENT_AGE", "0s"),
        ("GATEWAY_PORT", "70000"),
        ("MAX_REQUESTS", "0"),
        ("CATALOG_CACHE_MS", "60000"),
        ("GATEWAY_HOST", "0.0.0.0"),
    ],
)
def test_setting_that_can_not_be_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"HEADRACE_{name}", value)

    with pytest.raises(ValidationError, match=name.lower()):
        GatewaySettings()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_gateway_without_keys_listens_on_loopback(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("HEADRACE_GATEWAY_HOST", host)

    assert GatewaySettings().gateway_host == host
