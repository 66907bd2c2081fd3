"""Figures of a simulation as scripts read them."""

import json
from collections import Counter

from headrace_stack.simulate.visitors import Tally


def test_counts_by_word_are_objects() -> None:
    tally = Tally(visits=2, failed=Counter({"503": 1}), versions=Counter({7: 2}), expected=1.0, best=4.0)

    told = json.loads(json.dumps(tally.to_json()))

    assert (told["visits"], told["failed"], told["versions"], told["regret"]) == (2, {"503": 1}, {"7": 2}, 0.75)
