"""A little chance in an answer, with its probability: what nobody was shown can't be learned. Pure.

With probability `explore` the last place goes to an item drawn evenly from all N that may be recommended. If the draw is one
that can't take the place, being in the answer already or excluded by the caller, the answer stays as ranked. So, with R of the
N that can't:

    a drawn item is shown there with           explore / N
    the ranked last item is shown there with   1 - explore * (N - R) / N

Everything above it is shown with certainty, given what was ranked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from headrace_gateway.ranking.lists import Candidate

EXPLORATION: Final = "exploration"


@dataclass(frozen=True, slots=True)
class Draw:
    """What chance said for a request.

    Attributes:
        probability: with which the drawn item was to be shown.
        heads: whether it is to be.
        item_id: drawn evenly; only where `heads`.
        pool: from so many.
        excluded: how many of them the caller excludes.
    """

    probability: float
    heads: bool
    item_id: str
    pool: int
    excluded: int


def explored(
    ranked: Sequence[Candidate], draw: Draw, drawn: Candidate | None, in_pool: Sequence[bool]
) -> tuple[list[Candidate], dict[str, float]]:
    """The answer and the propensities that are not 1.

    Args:
        ranked: the answer without chance, best first.
        draw: what chance said.
        drawn: the drawn item with its score; None when it may not be shown.
        in_pool: of each ranked item, whether it could have been drawn.
    """
    answer = list(ranked)
    if not answer or not draw.pool:
        return answer, {}
    barred = draw.excluded + sum(in_pool)
    last = answer[-1]
    if draw.heads and drawn is not None and all(c.item_id != drawn.item_id for c in answer):
        answer[-1] = replace(drawn, source=EXPLORATION)
        return answer, {drawn.item_id: draw.probability / draw.pool}
    return answer, {last.item_id: 1.0 - draw.probability * max(0, draw.pool - barred) / draw.pool}
