"""Scores while there is no model: the smoothed probability of a click, from the ranked lists. Pure.

Two steps of shrinkage, each the mean of a Beta posterior. First the item's own rate over everybody, pulled to a prior:

    p = (CLICKS_A_PRIORI + clicks) / (IMPRESSIONS_A_PRIORI + impressions)

Then what this segment clicked on this page. That list tells clicks without impressions, so a click counts as a success among as
many trials, on top of a prior with the weight of SEGMENT_WEIGHT trials at rate p:

    score = (SEGMENT_WEIGHT * p + segment_clicks) / (SEGMENT_WEIGHT + segment_clicks)

Both are strictly inside (0, 1), grow with clicks and fall with impressions; an item nobody knows has the prior's rate. So scores
order like the probability of a click; they overstate it where the segment list is long, which a model mends.
"""

from dataclasses import dataclass
from typing import Final

CLICKS_A_PRIORI: Final = 1.0
IMPRESSIONS_A_PRIORI: Final = 50.0
SEGMENT_WEIGHT: Final = 50.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the lists say of one item.

    Attributes:
        clicks: by anybody.
        impressions: to anybody; never taken as fewer than clicks.
        segment_clicks: by the user's segment on this page.
    """

    clicks: float = 0.0
    impressions: float = 0.0
    segment_clicks: float = 0.0


NOTHING_KNOWN: Final = Evidence()


def score(evidence: Evidence) -> float:
    """Smoothed probability of a click, in (0, 1)."""
    clicks = max(0.0, evidence.clicks)
    impressions = max(clicks, evidence.impressions)
    rate = (CLICKS_A_PRIORI + clicks) / (IMPRESSIONS_A_PRIORI + impressions)
    segment_clicks = max(0.0, evidence.segment_clicks)
    return (SEGMENT_WEIGHT * rate + segment_clicks) / (SEGMENT_WEIGHT + segment_clicks)
