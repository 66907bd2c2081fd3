from headrace_gateway.ranking.popularity import NOTHING_KNOWN, Evidence, score
from hypothesis import given
from hypothesis import strategies as st

COUNTS = st.floats(0, 1e9)
MORE = st.floats(1, 1e6)


@given(COUNTS, COUNTS, COUNTS)
def test_score_is_a_probability(clicks: float, impressions: float, segment_clicks: float) -> None:
    assert 0 < score(Evidence(clicks, impressions, segment_clicks)) <= 1


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000))
def test_score_grows_with_clicks_and_falls_with_impressions(clicks: int, more: int, segment: int) -> None:
    impressions = clicks + more
    here = score(Evidence(clicks, impressions + 1, segment))

    assert score(Evidence(clicks + 1, impressions + 1, segment)) > here
    assert score(Evidence(clicks, impressions + 2, segment)) < here
    assert score(Evidence(clicks, impressions + 1, segment + 1)) > here


def test_unknown_item_has_the_rate_of_the_prior() -> None:
    assert score(NOTHING_KNOWN) == 1 / 50


def test_one_lucky_click_is_no_record() -> None:
    assert score(Evidence(clicks=1, impressions=1)) < score(Evidence(clicks=100, impressions=1_000))


def test_foreign_figures_stay_a_probability() -> None:
    assert 0 < score(Evidence(clicks=-5, impressions=-7, segment_clicks=-1)) < 1
    assert score(Evidence(clicks=10, impressions=0)) == score(Evidence(clicks=10, impressions=10))
