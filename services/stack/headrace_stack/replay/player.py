"""Sends a log: rank, then the impressions, then the clicks when their time has come.

Several chunks of slates are on the way at once. Impressions of a chunk are sent when the feature logs of its answers have left
the gateway; if it is lost before, the slates are ranked again, as long as nobody was told of them.
"""

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec
from headrace_client import AsyncClient, Event, InvalidError, Ranking, TooLargeError

from headrace_stack.replay.journal import Answered, Journal
from headrace_stack.replay.logged import Watch
from headrace_stack.replay.pace import Pace
from headrace_stack.replay.slate import Faults, Shown, Slate

_TICK_S: Final = 0.05
_MAX_EVENTS: Final = 1_000
#: Small ones, each held for a moment.
_CHUNKS_WHEN_PACED: Final = 200


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is on the way at once.

    Attributes:
        chunk_rows: impressions of a chunk, at most, unless one slate has more.
        chunk_slates: slates of a chunk, at most: the first is told of when the last is ranked, which must be well within the
            attribution window also where the gateway is slow.
        chunks: on the way at once.
        requests: rankings open at once.
    """

    chunk_rows: int = 400
    chunk_slates: int = 50
    chunks: int = 12
    requests: int = 12


@dataclass(slots=True)
class Tally:
    """What was sent, by this run of the command and those before it.

    Attributes:
        slates, impressions, clicks: acknowledged.
        ranked_again: slates ranked once more since their gateway went away.
        refused: rows that the gateway did not want.
        versions: slates by the model version that answered, 0 for popularity.
        degraded: slates whose answer lacked something.
        weights, rewards: of rows that an estimate may be made of, and whether a model answered.
    """

    slates: int = 0
    impressions: int = 0
    clicks: int = 0
    ranked_again: int = 0
    refused: Faults = field(default_factory=Faults)
    versions: dict[int, int] = field(default_factory=dict)
    degraded: int = 0
    weights: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    by_model: list[bool] = field(default_factory=list)

    def take(self, slate: Slate, answered: Answered) -> None:
        """Count a slate whose impressions are acknowledged."""
        if not answered.request_id:
            return
        self.slates += 1
        self.impressions += len(slate.shown)
        self.versions[answered.version] = self.versions.get(answered.version, 0) + 1
        self.degraded += answered.degraded
        if slate.judged:
            for shown, hit in zip(slate.shown, answered.hits, strict=True):
                if shown.propensity:
                    self.weights.append(1 / shown.propensity if hit == "1" else 0.0)
                    self.rewards.append(float(shown.click_after_s is not None))
                    self.by_model.append(answered.version > 0)


@dataclass(frozen=True, slots=True)
class _Chunk:
    first: int
    slates: Sequence[Slate]


class Player:
    """Plays one log against a gateway.

    Args:
        client: of the gateway; patient, since a replay waits out an outage.
        watch: of its feature logs.
        journal: what was sent before, and is now.
        pace: how fast the log's time passes.
        effort: how much is on the way at once.
        progressed: told how many rows were done.
        now_ms: the clock of event times.

    Attributes:
        tally: what was sent, by earlier runs, too.
        sent_now: impressions that this run sent.
        seconds: until the last of them was acknowledged.
    """

    def __init__(  # noqa: PLR0913  # each is a collaborator or a bound of its own
        self,
        client: AsyncClient,
        watch: Watch,
        journal: Journal,
        pace: Pace,
        effort: Effort | None = None,
        *,
        progressed: Callable[[int], None] = lambda _: None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._client, self._watch, self._journal, self._pace = client, watch, journal, pace
        self._effort, self._progressed, self._now_ms = effort or Effort(), progressed, now_ms
        self._requests = asyncio.Semaphore(self._effort.requests)
        self._clicks: list[tuple[int, int, int, Event]] = []  # (due, slate, row, event)
        self._all_shown = asyncio.Event()
        self._stop = asyncio.Event()
        self._run = journal.head.run
        self.tally, self.sent_now, self.seconds = Tally(), 0, 0.0

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Begin nothing new: what is on the way is finished, clicks to come are left to the next run."""
        self._stop.set()

    async def play(self, slates: Iterable[Slate]) -> None:
        """Send all that was not sent before; returns when every click has come, too, or after `stop`.

        Raises:
            HeadraceError: the gateway was away for longer than the client's patience, or is none.
        """
        chunks = self._effort.chunks if self._pace.unbounded else _CHUNKS_WHEN_PACED
        room = asyncio.Semaphore(chunks)
        began = time.monotonic()

        async def play(chunk: _Chunk) -> None:
            try:
                await self._play(chunk)
            finally:
                room.release()

        async with asyncio.TaskGroup() as group:
            clicking = group.create_task(self._send_clicks())
            async for chunk in self._paced(self._chunks(slates)):
                await room.acquire()
                group.create_task(play(chunk))
            for _ in range(chunks):
                await room.acquire()
            self.seconds = time.monotonic() - began
            self._all_shown.set()
            await clicking
        if not self.stopped:
            self._journal.finish(self._now_ms())

    def _chunks(self, slates: Iterable[Slate]) -> Iterator[_Chunk]:
        """Slates that are still to be sent, some at a time, all of them either answered before or not."""
        held: list[Slate] = []
        rows, answered = 0, False
        number = -1
        for number, slate in enumerate(slates):
            known = number in self._journal.answers
            if number in self._journal.sent:
                self._later(number, slate, self._journal.answers[number])
                self._done(number, slate)
                if held:
                    yield _Chunk(number - len(held), held)
                    held, rows = [], 0
                continue
            if held and (known != answered or self._is_full(held, rows, slate)):
                yield _Chunk(number - len(held), held)
                held, rows = [], 0
            held.append(slate)
            rows += len(slate.shown)
            answered = known
        if held:
            yield _Chunk(number + 1 - len(held), held)

    def _is_full(self, held: Sequence[Slate], rows: int, slate: Slate) -> bool:
        """Whether a chunk takes no further slate, or must not wait for this one."""
        return (
            len(held) >= self._effort.chunk_slates
            or rows + len(slate.shown) > self._effort.chunk_rows
            or self._pace.due_s(slate.at_ms, held[0].at_ms) > _TICK_S
        )

    async def _paced(self, chunks: Iterator[_Chunk]) -> AsyncIterator[_Chunk]:
        start, first_ms = time.monotonic(), None
        for chunk in chunks:
            if first_ms is None:  # an interrupted replay goes on at once
                first_ms = chunk.slates[0].at_ms
            ahead = start + self._pace.due_s(chunk.slates[-1].at_ms, first_ms) - time.monotonic()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), max(0.0, ahead))
            if self.stopped:
                return
            yield chunk

    async def _play(self, chunk: _Chunk) -> None:
        journal = self._journal
        numbers = range(chunk.first, chunk.first + len(chunk.slates))
        if chunk.first not in journal.answers:
            await self._introduce(chunk.slates)
            journal.answered(chunk.first, await self._answers(chunk.slates))
        answers = [journal.answers[n] for n in numbers]
        events = [
            self._event(slate, answered, shown)
            for slate, answered in zip(chunk.slates, answers, strict=True) if answered.request_id
            for shown in slate.shown
        ]  # fmt: skip
        rejected = await self._deliver(events)
        for number, slate, answered in zip(numbers, chunk.slates, answers, strict=True):
            self._later(number, slate, answered)
        journal.impressions_sent(numbers, rejected)
        self.sent_now += len(events)
        for number, slate in zip(numbers, chunk.slates, strict=True):
            self._done(number, slate)

    def _done(self, number: int, slate: Slate) -> None:
        self.tally.take(slate, self._journal.answers[number])
        self._progressed(len(slate.shown))

    async def _introduce(self, slates: Sequence[Slate]) -> None:
        """Put new users and items into the catalogs; of an entry that changed twice the last counts."""
        users = {user.user_id: user for slate in slates for user in slate.users}
        items = {item.item_id: item for slate in slates for item in slate.items}
        if users:
            await self._client.put_users(users.values())
        if items:
            await self._client.put_items(items.values())

    async def _answers(self, slates: Sequence[Slate]) -> list[Answered]:
        """Answers whose feature logs are in Kafka; where the gateway was lost before, they are asked for again."""
        while True:
            mark = self._watch.mark()
            answers = await asyncio.gather(*(self._rank(slate) for slate in slates))
            if await self._watch.logged(mark):
                now = self._now_ms()
                return [msgspec.structs.replace(answer, time_ms=now) for answer in answers]
            self.tally.ranked_again += len(slates)

    async def _rank(self, slate: Slate) -> Answered:
        async with self._requests:
            try:
                ranking = await self._client.rank(slate.user_id, slate.page_id, slate.candidates, context=slate.context)
            except (InvalidError, TooLargeError) as error:
                for shown in slate.shown:
                    self.tally.refused.add(shown.row, error.detail, slate.source)
                return Answered("", 0, 0, "")
        return Answered(
            ranking.request_id,
            0,
            ranking.model_version,
            _hits(ranking, slate.shown),
            bool(ranking.degraded),
        )

    def _event(self, slate: Slate, answered: Answered, shown: Shown) -> Event:
        return Event(
            event_id=f"{self._run}:{slate.source}:{shown.row}",
            user_id=slate.user_id,
            event_time=answered.time_ms,
            action="impression",
            item_id=shown.item_id,
            page_id=slate.page_id,
            request_id=answered.request_id,
            position=shown.position,
            attributes={"propensity": repr(shown.propensity)} if shown.propensity else {},
        )

    def _later(self, number: int, slate: Slate, answered: Answered) -> None:
        """Put the clicks of a slate where they wait for their time, unless they were sent before."""
        if not answered.request_id:
            return
        for shown in slate.shown:
            if shown.click_after_s is None:
                continue
            if (number, shown.row) in self._journal.clicked:
                self.tally.clicks += 1
                continue
            event = self._event(slate, answered, shown)
            event.action = "click"
            event.event_id += ":click"
            event.event_time += self._pace.click_after_ms(shown.click_after_s)
            heapq.heappush(self._clicks, (event.event_time, number, shown.row, event))

    async def _send_clicks(self) -> None:
        while not (self._all_shown.is_set() and (self.stopped or not self._clicks)):
            now = self._now_ms()
            due: list[tuple[int, int, int, Event]] = []
            while self._clicks and self._clicks[0][0] <= now and len(due) < _MAX_EVENTS:
                due.append(heapq.heappop(self._clicks))
            if due:
                rejected = await self._deliver([event for *_, event in due])
                self._journal.clicks_sent([(number, row) for _, number, row, _ in due], rejected)
                self.tally.clicks += len(due)
            else:
                await asyncio.sleep(_TICK_S)

    async def _deliver(self, events: Sequence[Event]) -> int:
        """Send events; how many were refused."""
        if not events:
            return 0
        result = await self._client.send_events(events)
        for rejection in result.rejected:
            event = events[rejection.index]
            _, source, row, *_ = event.event_id.split(":")
            self.tally.refused.add(int(row), f"{event.action}: {rejection.reason}", source)
        return len(result.rejected)


def _hits(ranking: Ranking, shown: Sequence[Shown]) -> str:
    items = ranking.items
    return "".join("1" if s.position < len(items) and items[s.position].item_id == s.item_id else "0" for s in shown)
