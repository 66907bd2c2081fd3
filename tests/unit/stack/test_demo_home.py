"""What a demo removes before its story, and what it leaves alone."""

from pathlib import Path

import pytest
from headrace_stack.demo.home import start_from_nothing
from headrace_stack.layout import Layout, StackError
from headrace_stack.stack import Stack


def a_home(folder: Path, *profiles: str) -> Layout:
    """A home in which stacks of these profiles left data, one after the other."""
    layout = Layout(folder / "home")
    for profile in profiles:
        layout.make(profile)
        (layout.data / "postgres").mkdir(exist_ok=True)
        (layout.data / "models" / f"of-{profile}").touch()
    layout.ports.write_text("{}", encoding="utf-8")
    return layout


def names(layout: Layout) -> set[str]:
    return {entry.name for entry in layout.data.iterdir()}


def test_story_that_was_told_is_forgotten_and_ports_are_kept(tmp_path: Path) -> None:
    layout = a_home(tmp_path, "demo", "demo")
    (layout.logs / "runs").mkdir()

    start_from_nothing(Stack(layout), {})

    assert names(layout) == set()
    assert not (layout.logs / "runs").exists()
    assert layout.ports.exists()
    layout.make("demo")
    assert layout.profiles() == {"demo"}


@pytest.mark.parametrize("profiles", [("default",), ("default", "demo"), ("demo", "default")])
def test_data_that_are_not_a_demos_alone_stay(tmp_path: Path, profiles: tuple[str, ...]) -> None:
    layout = a_home(tmp_path, *profiles)
    before = names(layout)

    with pytest.raises(StackError, match="holds data of a stack with the profile default"):
        start_from_nothing(Stack(layout), {})

    assert names(layout) == before


def test_data_of_which_nobody_noted_the_profile_stay(tmp_path: Path) -> None:
    layout = a_home(tmp_path, "demo")
    layout.profiles_file.unlink()
    layout.make("demo")

    with pytest.raises(StackError, match="of nobody knows whom"):
        start_from_nothing(Stack(layout), {})

    assert "postgres" in names(layout)


def test_stores_that_the_demo_cannot_empty_are_told(tmp_path: Path) -> None:
    layout = a_home(tmp_path, "demo")

    with pytest.raises(StackError, match="HEADRACE_KAFKA says"):
        start_from_nothing(Stack(layout), {"HEADRACE_KAFKA": "kafka.example:9092"})

    assert "postgres" in names(layout)


def test_home_without_data_stays_as_it_is(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home")

    start_from_nothing(Stack(layout), {"HEADRACE_KAFKA": "kafka.example:9092"})

    assert not layout.home.exists()
