"""How a step of the demo's story waits."""

from collections.abc import AsyncIterator

import httpx
import pytest
from headrace_core.control.client import ControlAwayError
from headrace_stack.demo.scene import Scene
from headrace_stack.demo.story import StepFailedError, Telling

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
async def telling() -> AsyncIterator[Telling]:
    """A story of which nothing was told yet."""
    scene = Scene({"gateway": NOWHERE, "control": NOWHERE, "postgres": ""})

    async def compare(_since: int, _version: int) -> dict[str, object]:
        return {}

    made = Telling(scene, NOWHERE, compare)
    yield made
    await made.visitors.aclose()
    await scene.aclose()


@pytest.mark.parametrize("fault", [ControlAwayError(503, "gone"), httpx.ConnectError("gone")], ids=type)
async def test_step_goes_on_when_something_was_away_for_a_moment(telling: Telling, fault: Exception) -> None:
    faults = [fault]

    async def comes_true() -> bool:
        if faults:
            raise faults.pop()
        return True

    await telling.until("it comes true", 60, comes_true)

    (step,) = telling.figures.steps
    assert step.seconds is not None
    assert step.failed is None


async def test_step_that_does_not_come_true_tells_why(telling: Telling) -> None:
    async def is_away() -> bool:
        raise ControlAwayError(503, "gone")

    with pytest.raises(StepFailedError, match="gone"):
        await telling.until("it comes true", 0.1, is_away)

    assert telling.figures.steps[0].failed is not None
    assert not telling.figures.ok
