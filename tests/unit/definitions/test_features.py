"""Feature definitions: what is wrong is refused with file, line and reason; the same meaning has the same hash."""

import shutil
from pathlib import Path

import pytest
from headrace_core.contracts import ACTION_BY_NAME, BehaviorEvent
from headrace_core.definitions.features import DefinitionError, Feature, feature_set_version, load_features

SHIPPED = Path(__file__).parents[3] / "definitions" / "features"
TOP = """\
feature: top
source: behavior-events
where: action = 'click'
by: [category]
window: {size: 10m, every: 1s}
top: {of: item_id, rank_by: count, k: 10}
"""
RATE = (
    TOP.replace("count", "rate") + "rate: {numerator: \"item_type = 'ad'\", denominator: \"action = 'impression'\"}\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(SHIPPED / "feature.schema.json", tmp_path)
    return tmp_path


def load(folder: Path, text: str) -> Feature:
    (folder / "top.yaml").write_text(text, encoding="utf-8")
    return load_features(folder)[0]


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("'click'", "'clack'", 3, "where: no such action: clack"),
        ("[category]", "[colour]", 4, "by: no such column: colour"),
        ("of: item_id", "of: price", 6, "top: no such column: price"),
        ("10m", "2d", 5, "does not match"),
        ("10m", "25h", 5, "a window is at most 24h"),
        ("k: 10", "k: 0", 6, "less than the minimum"),
        ("k: 10", "k: 10, z: 1", 6, "'z' was unexpected"),
        ("count", "rate", 6, "rank_by: rate needs `rate`"),
        ("source: behavior-events", "source: clicks", 2, "'behavior-events' was expected"),
        ("window: {size: 10m, every: 1s}\n", "", 1, "'window' is a required property"),
        ("top: {", "top: {{", 7, ""),
    ],
)
def test_wrong_definition_is_refused_with_file_line_and_reason(
    folder: Path, old: str, new: str, line: int, reason: str
) -> None:
    with pytest.raises(DefinitionError) as refused:
        load(folder, TOP.replace(old, new))

    where, _, told = str(refused.value).partition(": ")
    assert where == f"{folder / 'top.yaml'}:{line}"
    assert reason in told


def test_same_name_twice_is_refused(folder: Path) -> None:
    (folder / "other.yaml").write_text(TOP, encoding="utf-8")

    with pytest.raises(DefinitionError, match=r"top\.yaml:1: a second feature with the name top"):
        load(folder, TOP)


def test_sequence_is_by_user(folder: Path) -> None:
    with pytest.raises(DefinitionError, match="a sequence is by"):
        load(folder, TOP.replace("top: {of: item_id, rank_by: count, k: 10}", "sequence: {fields: [item_id]}"))


def test_description_changes_no_hash_and_meaning_does(folder: Path) -> None:
    plain = load(folder, TOP)
    described = load(folder, TOP + "description: The best.\n")
    longer = load(folder, TOP.replace("10m", "20m"))

    assert plain.definition == described.definition != longer.definition
    assert feature_set_version([plain]) == feature_set_version([described]) != feature_set_version([longer])


@pytest.mark.parametrize(
    ("size", "tile_ms"), [("30s", 1_000), ("1m", 1_000), ("10m", 10_000), ("1h", 60_000), ("24h", 900_000)]
)
def test_slices_grow_with_the_window(folder: Path, size: str, tile_ms: int) -> None:
    assert load(folder, TOP.replace("10m", size)).tile_ms == tile_ms


def test_where_narrows_the_numerator_of_a_rate(folder: Path) -> None:
    rate = load(folder, RATE)

    def an_event(action: str, item_type: str) -> BehaviorEvent:
        return BehaviorEvent(action=ACTION_BY_NAME[action], item_type=item_type)  # type: ignore[arg-type]  # an enum is an int

    assert rate.where(an_event("click", "ad"))
    assert not rate.where(an_event("click", "goods"))
    assert not rate.where(an_event("cart", "ad"))


def test_shipped_definitions_load() -> None:
    assert {f.name for f in load_features(SHIPPED)} >= {
        "user_last_5_minutes", "top_ads_by_segment", "item_click_rate_by_category",
    }  # fmt: skip
