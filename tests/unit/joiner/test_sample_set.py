import shutil
from pathlib import Path

import pytest
from headrace_core.contracts import Action
from headrace_sample_joiner.sample_set import SampleSet, SampleSetError, load_sample_set

DEFINITIONS = Path(__file__).resolve().parents[3] / "definitions" / "samples"
GOOD = "sample_set: click\nactions: [click, cart]\nwindow: 90s\nhorizon: 7d\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    shutil.copy(DEFINITIONS / "sample.schema.json", tmp_path)
    return tmp_path / "set.yaml"


def test_sample_set_is_read_with_its_durations_in_ms(file: Path) -> None:
    file.write_text(GOOD, encoding="utf-8")

    loaded = load_sample_set(file)

    assert loaded == SampleSet("click", frozenset({Action.ACTION_CLICK, Action.ACTION_CART}), 90_000, 7 * 86_400_000)


def test_shipped_sample_set_is_good() -> None:
    assert load_sample_set(DEFINITIONS / "click.yaml").name == "click"


@pytest.mark.parametrize(
    ("text", "place", "fault"),
    [
        (GOOD.replace("90s", "soon"), 3, "'soon' does not match"),
        (GOOD.replace("click, cart", "click, wave"), 2, "'wave' is not one of"),
        (GOOD.replace("horizon: 7d\n", ""), 1, "'horizon' is a required property"),
        (GOOD + "color: red\n", 1, "'color' was unexpected"),
        (GOOD + "window: [1\n", 6, "expected"),
        (GOOD + "window: 5m\n", 5, "duplicate key"),
        ("- a\n- b\n", 1, "is not of type 'object'"),
        ("", 1, "is not of type 'object'"),
    ],
)
def test_faulty_sample_set_is_refused_with_file_line_and_fault(file: Path, text: str, place: int, fault: str) -> None:
    file.write_text(text, encoding="utf-8")

    with pytest.raises(SampleSetError) as refused:
        load_sample_set(file)

    assert str(refused.value).startswith(f"{file}:{place}: ")
    assert fault in str(refused.value)


def test_missing_sample_set_is_refused_by_name(file: Path) -> None:
    with pytest.raises(SampleSetError, match=r"set\.yaml.*not found"):
        load_sample_set(file)
