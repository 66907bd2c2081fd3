"""No key in a line of the log, whoever wrote it."""

import io
import json
import logging

import pytest
from headrace_core.settings import TelemetrySettings
from headrace_core.telemetry import configure_logging
from headrace_core.web.keys import new_key


@pytest.mark.parametrize("form", ["json", "text"])
def test_key_is_taken_out_of_messages_fields_and_exceptions(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out, key = io.StringIO(), new_key()
    monkeypatch.setattr("sys.stderr", out)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure_logging(TelemetrySettings(log_format=form))
        log = logging.getLogger("someone")
        log.warning("called with %s", key, extra={"fields": {"header": f"Bearer {key}"}})
        log.error("it failed", exc_info=ValueError(f"Illegal header value b'Bearer {key}'"))
    finally:
        root.handlers[:] = before
        root.setLevel(level)

    written = out.getvalue()
    assert "called with hr_***" in written
    assert "Bearer hr_***'" in written
    assert key not in written
    assert form == "text" or [json.loads(line)["level"] for line in written.splitlines()] == ["WARNING", "ERROR"]
