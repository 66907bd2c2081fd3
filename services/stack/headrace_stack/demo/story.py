"""The story, told step by step, with a check for each; `Telling.figures` holds what was seen."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from headrace_core.control.client import ControlError

from headrace_stack.demo.scene import Scene, Shown, Spread, click_to_sample, click_to_weights
from headrace_stack.simulate.story import NEWCOMER, USER_4, Chapter, StoryWorld
from headrace_stack.simulate.visitors import Habits, Visitors
from headrace_stack.simulate.world import Person

MODEL: Final = "ctr"
#: Visits a second; the crowd that moves is a larger one.
_RATE, _CROWD_RATE = 25.0, 50.0
#: As long as the top list's window: a list that always tells the fashion before teaches a model not to believe it.
_FASHION_S: Final = 30.0
#: The first three are in the base model. A fashion that stays is learned by heart, so they go on until a model serves.
_FASHIONS: Final = ("2002", *("2011", "2001") * 20)
_PROBE_EVERY_S: Final = 2.0
_LOOK_EVERY_S: Final = 0.5


@dataclass(slots=True)
class Step:
    """One step of the story.

    Attributes:
        name: what has to come true.
        seconds: how long it took, None while it has not.
        failed: why it did not come true.
    """

    name: str
    seconds: float | None = None
    failed: str | None = None


@dataclass(slots=True)
class Figures:
    """What the demo shows and prints."""

    steps: list[Step] = field(default_factory=list)
    user_4: Shown | None = None
    newcomer: Shown | None = None
    top_ads: list[tuple[str, int]] = field(default_factory=list)
    feature: Spread = field(default_factory=lambda: Spread.of([]))
    sample: Spread = field(default_factory=lambda: Spread.of([]))
    weights: Spread = field(default_factory=lambda: Spread.of([]))
    quality: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every step came true."""
        return bool(self.steps) and all(s.seconds is not None for s in self.steps)


class StepFailedError(Exception):
    """A step of the story did not come true in time."""


class Telling:
    """Tells the story on a running stack.

    Args:
        scene: the platform.
        visitors: the crowd; its world is a StoryWorld.
        compare: log loss of the live and the frozen model on the newest held-out samples since a time (ms).
        patience: factor on all deadlines.
    """

    def __init__(
        self,
        scene: Scene,
        gateway: str,
        compare: Callable[[int, int], Awaitable[dict[str, Any]]],
        patience: float = 1.0,
    ) -> None:
        self.world = StoryWorld()
        self.visitors = Visitors(gateway, self.world, Habits())
        self.scene, self._compare, self._patience = scene, compare, patience
        self.figures = Figures()
        self._features: list[float] = []
        self._probes: list[tuple[str, str]] = []
        self._over = asyncio.Event()
        self._rate = _RATE

    async def tell(self) -> None:
        """All of it, in order.

        Raises:
            StepFailedError: a step did not come true; `figures` says which.
        """
        await self.visitors.introduce([USER_4, NEWCOMER])
        beside = [
            asyncio.create_task(self.visitors.come(lambda: self._rate, self._over)),
            asyncio.create_task(self._probe()),
            asyncio.create_task(self._look()),
        ]
        try:
            await self._history()
            serves = int(time.time() * 1000)
            await self._crowd_moves()
            await self._tastes_split()
            self.figures.weights = await click_to_weights(self.scene, MODEL, serves)
        finally:
            self._over.set()
            await asyncio.gather(*beside)
            await self.visitors.aclose()

    async def _history(self) -> None:
        """Fashions come and go: the base model learns that the lists tell what is liked. Then everybody likes 2002."""
        fashions = asyncio.create_task(self._fashions())
        try:
            await self.until("the base model is validated", 300, self._base_is_validated)
            await self.until("a validated model serves", 120, self._model_serves)
        finally:
            fashions.cancel()
        self.world.fashion, self.world.chapter = None, Chapter.HISTORY

        async def settled() -> bool:
            return await self._is_shown(USER_4, "2002") and await self._leads("2002")

        await self.until("user 4, who never came, is shown 2002, as the list says", 120, settled)

    async def _crowd_moves(self) -> None:
        assert self.figures.user_4 is not None  # noqa: S101  # the step before has looked
        self.world.chapter, self._rate = Chapter.CROWD_MOVES, _CROWD_RATE
        moved = int(time.time() * 1000)

        async def follows() -> bool:
            if not await self._is_shown(USER_4, "2001"):
                return False
            assert self.figures.user_4 is not None  # noqa: S101  # it was looked at just now
            version = await self.scene.control.version(MODEL, self.figures.user_4.version)
            if max(version.manifest["samples"]["settled"].values(), default=0) >= moved:
                raise StepFailedError(f"version {version.version} has learned it already: features alone were too slow")
            return True

        list_follows = "the list of the ten most clicked ads follows the crowd to 2001"
        await self.until(list_follows, 60, lambda: self._leads("2001"))
        await self.until("user 4 is shown 2001, by weights that have not seen it", 60, follows)

    async def _tastes_split(self) -> None:
        self.world.chapter = Chapter.TASTES_SPLIT
        split = int(time.time() * 1000)
        base = self.figures.user_4.version if self.figures.user_4 else 0

        async def told_apart() -> bool:
            four, newcomer = await self.scene.shown_to(USER_4), await self.scene.shown_to(NEWCOMER)
            self.figures.user_4, self.figures.newcomer = four, newcomer
            return four.items[:1] == ["2002"] and newcomer.items[:1] == ["2011"] and four.version > base

        await self.until("Shanghai is shown 2002 and Beijing 2011, by a validated increment", 300, told_apart)

        async def better() -> bool:
            self.figures.quality = await self._compare(split, self.figures.user_4.version if self.figures.user_4 else 0)
            return bool(self.figures.quality.get("gap_low", -1.0) > 0)

        await self.until("its log loss on held-out samples is below the frozen base's, with its interval", 120, better)

    async def _fashions(self) -> None:
        for item in _FASHIONS:
            self.world.fashion = {"Shanghai": item, "Beijing": item}
            await asyncio.sleep(_FASHION_S)

    async def _base_is_validated(self) -> bool:
        versions = await self.scene.control.versions(f"{MODEL}_base", limit=5)
        return any(v.stage == "VALIDATED" for v in versions)

    async def _model_serves(self) -> bool:
        shown = await self.scene.shown_to(USER_4)
        self.figures.user_4 = shown
        return shown.version > 0 and not shown.degraded

    async def _is_shown(self, person: Person, item: str) -> bool:
        self.figures.user_4 = await self.scene.shown_to(person)
        return self.figures.user_4.items[:1] == [item] and self.figures.user_4.version > 0

    async def _leads(self, item: str) -> bool:
        self.figures.top_ads = await self.scene.top_ads()
        return bool(self.figures.top_ads) and self.figures.top_ads[0][0] == item

    async def until(self, name: str, deadline_s: float, condition: Callable[[], Awaitable[bool]]) -> None:
        """A step: wait until it comes true, through whatever is away for a moment.

        Raises:
            StepFailedError: it did not come true in time, or can't any more.
        """
        step = Step(name)
        self.figures.steps.append(step)
        start = time.monotonic()
        fault = "it was not so"
        while time.monotonic() - start < deadline_s * self._patience:
            try:
                if await condition():
                    step.seconds = time.monotonic() - start
                    return
            except (httpx.HTTPError, ControlError) as error:  # a busy machine; the deadline is the step's own
                fault = repr(error)
            except StepFailedError as error:
                step.failed = str(error)
                raise
            await asyncio.sleep(_LOOK_EVERY_S)
        step.failed = f"{fault} within {deadline_s * self._patience:.0f} s"
        raise StepFailedError(f"{name}: {step.failed}")

    async def _probe(self) -> None:
        """Measure from click to feature and sample with people of their own."""
        number = 0
        while not self._over.is_set():
            number += 1
            try:
                seconds, request_id, item = await self.scene.click_until_feature(
                    Person(f"probe-{number}", "China", "male", "Chengdu")
                )
            except (httpx.HTTPError, IndexError):  # an answer that failed or was empty: the next probe tells
                pass
            else:
                self._features.append(seconds)
                self._probes.append((request_id, item))
                self.figures.feature = Spread.of(self._features)
            await self._pause(_PROBE_EVERY_S)

    async def _look(self) -> None:
        """Keep what is shown beside the steps fresh."""
        while not self._over.is_set():
            try:
                self.figures.top_ads = await self.scene.top_ads()
                if self.world.chapter is not Chapter.TASTES_SPLIT:  # whose step looks itself, at both people at once
                    self.figures.newcomer = await self.scene.shown_to(NEWCOMER)
                self.figures.sample = await click_to_sample(self.scene.postgres, self._probes[:-1])
            except (httpx.HTTPError, OSError):
                pass
            await self._pause(_PROBE_EVERY_S)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._over.wait(), seconds)
        except TimeoutError:
            return
