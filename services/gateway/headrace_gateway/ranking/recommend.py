"""POST /v1/recommend and /v1/rank: what is known is read, items are scored, the features that served are logged."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from headrace_core.contracts import Millis
from headrace_core.telemetry import DEGRADED, STAGE_SECONDS

from headrace_gateway.catalog.entries import ItemEntry
from headrace_gateway.catalog.snapshot import ItemSnapshot
from headrace_gateway.problem import ProblemError
from headrace_gateway.ranking.candidates import CANDIDATES, Wanted, best, fits, gather, is_ruled_out
from headrace_gateway.ranking.evidence import EvidenceReader, Items, Request, recent_categories
from headrace_gateway.ranking.explore import EXPLORATION, Draw, explored
from headrace_gateway.ranking.feature_log import FeatureLogger, Served
from headrace_gateway.ranking.features import Features
from headrace_gateway.ranking.in_force import Current
from headrace_gateway.ranking.lists import Candidate, Lists
from headrace_gateway.ranking.popularity import score
from headrace_gateway.ranking.schema import (
    MAX_CANDIDATES,
    MODEL_UNAVAILABLE,
    NO_MODEL,
    RankedAnswer,
    RankedItem,
    RankIn,
    RecommendIn,
)
from headrace_gateway.scoring.scorer import Scorer, Scores

REDIS_UNAVAILABLE: Final = "redis_unavailable"

_DEGRADED: Final = {reason: DEGRADED.labels(reason) for reason in (NO_MODEL, MODEL_UNAVAILABLE, REDIS_UNAVAILABLE)}
_ANSWER: Final = STAGE_SECONDS.labels("answer")

#: So many categories' lists are read for a request that names none; and so many of a ranked set of candidates.
_MAX_LISTS: Final = 20
_MAX_LISTS_RANK: Final = 100


class Recommender:
    """Answers by the deployed model, or with popular items while there is none.

    Args:
        reader: of Redis.
        snapshot: of the catalog's available items.
        logger: of what served.
        current: the feature definitions in force.
        scorer: asks the model; None while none is defined.
        explore: with this probability a recommendation's last place goes to chance.
        chance: where it comes from.
    """

    def __init__(  # noqa: PLR0913  # the parts of a recommendation
        self,
        reader: EvidenceReader,
        snapshot: ItemSnapshot,
        logger: FeatureLogger,
        current: Current,
        *,
        scorer: Scorer | None,
        explore: float,
        chance: random.Random,
    ) -> None:
        self._reader, self._snapshot, self._logger, self._current = reader, snapshot, logger, current
        self._scorer, self._explore, self._chance = scorer, explore, chance

    async def recommend(self, asked: RecommendIn, request_id: str, now: Millis) -> RankedAnswer:
        """The best available items; fewer than asked for when there are no more."""
        wanted = _wanted(asked)
        request = await self._reader.read_user(asked.user_id, now, self._current.in_force)
        if asked.categories is not None:
            categories = list(asked.categories)
        else:
            recent = recent_categories(request.views, _MAX_LISTS)
            popular = self._snapshot.categories(asked.item_type, _MAX_LISTS)
            categories = list(dict.fromkeys([*recent, *popular]))[:_MAX_LISTS]
        lists = await self._reader.read_lists(request, asked.page_id, categories)
        candidates = gather(lists, self._snapshot, wanted, asked.count)
        draw = self._draw(wanted)
        looked_at = _with_drawn(candidates, draw, wanted, lists)
        items = await self._reader.read_items([c.item_id for c in looked_at], request.in_force)
        request.missing += items.missing
        fitting = [c for c in looked_at if fits(self._entry(c, items), wanted)]
        features = Features(asked.context, asked.page_id, now, request, items, lists)
        scored, told = await self._scored(asked, fitting, features)
        chosen = best((c for c in scored if c.source != EXPLORATION), asked.count)
        propensities: dict[str, float] = {}
        if draw is not None:
            drawn = next((c for c in scored if c.item_id == draw.item_id), None)
            in_pool = [self._snapshot.holds(c.item_id, wanted.item_type, wanted.categories) for c in chosen]
            chosen, propensities = explored(chosen, draw, drawn, in_pool)
        served = Served(
            self._answer(request_id, chosen, told, request),
            asked.user_id, asked.page_id, now, features, request.missing, propensities,
        )  # fmt: skip
        self._logger.offer(served)
        return served.answer

    async def rank(self, asked: RankIn, request_id: str, now: Millis) -> RankedAnswer:
        """The caller's candidates, best first; those nobody knows are ranked with defaults.

        Raises:
            ProblemError: 413 for more candidates than are taken.
        """
        if len(asked.candidates) > MAX_CANDIDATES:
            raise ProblemError(413, f"candidates: {len(asked.candidates)} given, at most {MAX_CANDIDATES} are taken")
        wanted = _wanted(asked)
        ids = [i for i in dict.fromkeys(asked.candidates) if i not in wanted.exclude]
        in_force = self._current.in_force
        request, items = await asyncio.gather(
            self._reader.read_user(asked.user_id, now, in_force), self._reader.read_items(ids, in_force)
        )
        request.missing += items.missing
        categories = dict.fromkeys(e.category for e in items.entries.values() if e.category)
        lists = await self._reader.read_lists(request, asked.page_id, list(categories)[:_MAX_LISTS_RANK])
        listed = (Candidate(i, CANDIDATES, score(lists.evidence(i))) for i in ids)
        fitting = [c for c in listed if not is_ruled_out(self._entry(c, items), wanted)]
        features = Features(asked.context, asked.page_id, now, request, items, lists)
        scored, told = await self._scored(asked, fitting, features)
        answer = self._answer(request_id, best(scored, asked.count), told, request)
        self._logger.offer(Served(answer, asked.user_id, asked.page_id, now, features, request.missing))
        return answer

    def _draw(self, wanted: Wanted) -> Draw | None:
        """What chance says for a request; None where it has no say."""
        if not self._explore:
            return None
        kind, categories = wanted.item_type, wanted.categories
        pool = self._snapshot.count(kind, categories)
        excluded = sum(self._snapshot.holds(i, kind, categories) for i in wanted.exclude)
        heads = bool(pool) and self._chance.random() < self._explore
        item = self._snapshot.nth(self._chance.randrange(pool), kind, categories) if heads else ""
        return Draw(self._explore, heads, item, pool, excluded)

    async def _scored(
        self, asked: RecommendIn | RankIn, candidates: Sequence[Candidate], features: Features
    ) -> tuple[Sequence[Candidate], Scores | str]:
        """Candidates by the model's scores, or as they are with the reason."""
        if self._scorer is None:
            return candidates, NO_MODEL
        ids = [c.item_id for c in candidates]
        told = await self._scorer.score(asked.user_id, asked.page_id, ids, features)
        if isinstance(told, str):
            return candidates, told
        return [replace(c, score=s) for c, s in zip(candidates, told.scores, strict=True)], told

    def _entry(self, candidate: Candidate, items: Items) -> ItemEntry:
        """What is known of an item, best source first; an item without any is what its list says of it."""
        entry = items.entries.get(candidate.item_id)
        if entry is not None and entry.known:
            return entry
        return self._snapshot.standing(candidate.item_id) or candidate.implied

    @staticmethod
    def _answer(request_id: str, chosen: Sequence[Candidate], told: Scores | str, request: Request) -> RankedAnswer:
        degraded = [told] if isinstance(told, str) else []
        if request.missing:
            degraded.append(REDIS_UNAVAILABLE)
        for reason in degraded:
            _DEGRADED[reason].inc()
        with _ANSWER.time():
            return RankedAnswer(
                request_id=request_id,
                items=[RankedItem(c.item_id, c.score, n, c.source) for n, c in enumerate(chosen)],
                model="" if isinstance(told, str) else told.model,
                model_version=0 if isinstance(told, str) else told.version,
                feature_set_version=request.in_force.version,
                degraded=degraded,
            )


def _with_drawn(
    candidates: Sequence[Candidate], draw: Draw | None, wanted: Wanted, lists: Lists
) -> Sequence[Candidate]:
    """The candidates, and the drawn item if it is to be looked at on its own."""
    if draw is None or not draw.heads or draw.item_id in wanted.exclude:
        return candidates
    if any(c.item_id == draw.item_id for c in candidates):
        return candidates
    return [*candidates, Candidate(draw.item_id, EXPLORATION, score(lists.evidence(draw.item_id)))]


def _wanted(asked: RecommendIn | RankIn) -> Wanted:
    categories = frozenset(asked.categories) if asked.categories is not None else None
    return Wanted(asked.item_type, categories, frozenset(asked.exclude))
