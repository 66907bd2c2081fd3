"""Exploration's propensities, held against every draw that there can be."""

from fractions import Fraction

import pytest
from headrace_gateway.ranking.explore import EXPLORATION, Draw, explored
from headrace_gateway.ranking.lists import Candidate
from hypothesis import given
from hypothesis import strategies as st

RANKED = [Candidate(f"i{n}", "catalog", 1.0 - n / 10) for n in range(3)]


def answers(
    ranked: list[Candidate], pool: list[str], excluded: set[str], probability: Fraction
) -> list[tuple[Fraction, list[Candidate], dict[str, float]]]:
    """Each draw with its probability, the answer and the propensities that are told."""
    barred = sum(item in excluded for item in pool)
    in_pool = [c.item_id in pool for c in ranked]
    tails = Draw(float(probability), False, "", len(pool), barred)
    found = [(1 - probability, *explored(ranked, tails, None, in_pool))]
    for item in pool:
        draw = Draw(float(probability), True, item, len(pool), barred)
        # What the caller excludes is not looked at, so there is no candidate of it.
        drawn = None if item in excluded else Candidate(item, "list", 0.01)
        found.append((probability / len(pool), *explored(ranked, draw, drawn, in_pool)))
    return found


@given(
    st.lists(st.sampled_from([f"i{n}" for n in range(8)]), unique=True, min_size=1),
    st.sets(st.sampled_from([f"i{n}" for n in range(3, 8)])),
    st.integers(1, 99),
)
def test_told_propensity_is_the_share_of_draws_that_show_the_item(
    pool: list[str], excluded: set[str], percent: int
) -> None:
    every = answers(RANKED, pool, excluded, Fraction(percent, 100))

    assert sum(p for p, _, _ in every) == 1
    for _, answer, told in every:
        for shown in answer:
            share = sum(p for p, other, _ in every if any(c.item_id == shown.item_id for c in other))
            assert told.get(shown.item_id, 1.0) == pytest.approx(float(share))


def test_drawn_item_takes_the_last_place_alone_and_says_so() -> None:
    draw = Draw(0.1, True, "x", 10, 0)

    answer, _ = explored(RANKED, draw, Candidate("x", "list", 0.9), [False] * 3)

    assert [(c.item_id, c.source) for c in answer] == [("i0", "catalog"), ("i1", "catalog"), ("x", EXPLORATION)]


def test_drawn_item_that_is_ranked_already_changes_nothing() -> None:
    answer, _ = explored(RANKED, Draw(0.1, True, "i0", 10, 0), RANKED[0], [True] * 3)

    assert answer == RANKED


def test_empty_answer_stays_empty() -> None:
    assert explored([], Draw(0.5, True, "x", 10, 0), Candidate("x", "list", 0.9), []) == ([], {})
