from pathlib import Path

from headrace_core.definitions.features import feature_set_version, load_features
from headrace_gateway.ranking.in_force import in_force
from headrace_gateway.ranking.lists import CATEGORY_LIST, SEGMENT_LIST

FOLDER = Path(__file__).parents[3] / "definitions" / "features"


def test_shipped_sequence_is_read_per_user_with_its_window() -> None:
    definitions = in_force(load_features(FOLDER))

    (field,) = definitions.user_fields
    assert field.feature == "user_last_5_minutes"
    assert field.redis == f"user_last_5_minutes@{field.definition}"
    assert definitions.windows == {"user_last_5_minutes": 300_000}


def test_lists_that_bring_candidates_are_shipped() -> None:
    assert in_force(load_features(FOLDER)).ranked.keys() == {SEGMENT_LIST, CATEGORY_LIST}


def test_version_is_that_of_the_set() -> None:
    features = load_features(FOLDER)

    assert in_force(features).version == feature_set_version(features) > 0
    assert in_force(features[:-1]).version != in_force(features).version
