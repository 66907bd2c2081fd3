"""Streams for Hypothesis: a few requests, anything that can happen to them, in any order."""

from itertools import chain

from headrace_core.contracts import Action, BehaviorEvent
from hypothesis import strategies as st

from tests.unit.joiner.driver import WINDOW, Message
from tests.unit.joiner.events import a_cancellation, a_log, a_request, an_event, an_impression

MADE_AT = {a_request(n, made_at): made_at for n, made_at in [(1, 0), (2, WINDOW)]}
REQUESTS = list(MADE_AT)
KINDS = [Action.ACTION_IMPRESSION, Action.ACTION_IMPRESSION, Action.ACTION_CLICK, Action.ACTION_CART]

_times = st.integers(0, 6 * WINDOW // 1_000).map(lambda s: s * 1_000)
_facts = st.tuples(
    st.sampled_from(KINDS),
    st.sampled_from(REQUESTS),
    st.sampled_from("ab"),
    _times,
)


@st.composite
def streams(draw: st.DrawFn) -> list[Message]:
    """Impressions (some of one item more than once), actions, cancellations, copies and logs, in any order.

    Beside each log comes an impression in time, since a log for which none comes expires.
    """
    facts = draw(st.lists(_facts, min_size=1, max_size=10))
    events = [an_event(kind, request, item, at, f"e{n}") for n, (kind, request, item, at) in enumerate(facts)]
    cancelled = [
        a_cancellation(e, at=draw(st.integers(0, 4 * WINDOW)))
        for e in events
        if e.action != Action.ACTION_IMPRESSION and draw(st.booleans())
    ]
    copies: list[BehaviorEvent] = draw(st.lists(st.sampled_from(events + cancelled), max_size=3))
    units: list[list[Message]] = [[e] for e in (*events, *cancelled, *copies)]
    for request in draw(st.lists(st.sampled_from(REQUESTS), unique=True)):
        beside = an_impression(request, at=MADE_AT[request] + draw(st.integers(0, WINDOW)))
        units.append(draw(st.permutations([beside, a_log(request)])))
    return list(chain.from_iterable(draw(st.permutations(units))))
