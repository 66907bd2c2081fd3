"""The worker's app, before it has started: whoever asks how far it is must not make what only the worker may make."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from headrace_core.runtime.faust_driver import build_app
from headrace_core.settings import KafkaSettings


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    yield made
    asyncio.set_event_loop(None)
    made.close()


@pytest.mark.usefixtures("loop")
def test_probe_of_another_thread_makes_no_consumer(tmp_path: Path) -> None:
    app = build_app("probed", [], KafkaSettings(), datadir=str(tmp_path))
    seen: list[object] = []

    probe = threading.Thread(target=lambda: seen.append(app.assigned()))
    probe.start()
    probe.join()

    assert seen == [set()]
    assert app._consumer is None
