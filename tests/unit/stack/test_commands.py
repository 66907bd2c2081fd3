"""What all commands have, and the pure parts of some."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import typer
from headrace_stack.__main__ import app
from headrace_stack.commands.models import latest
from headrace_stack.commands.terminal import WrongUsageError, moment
from headrace_stack.look import audited
from typer.testing import CliRunner

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
NOON_MS = int(NOW.timestamp() * 1000)
#: They print JSON anyway, or what another tool writes, or end with nothing to tell.
WITHOUT_JSON = {"up", "down", "logs", "address", "demo"}


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its words."""

    def below(words: tuple[str, ...], command: Any) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        yield " ".join(words), command
        for name, one in (inner or {}).items():
            yield from below((*words, name), one)

    yield from below((), typer.main.get_command(app))


NAMES = [name for name, _ in commands()]
LEAVES = [name for name, command in commands() if not hasattr(command, "commands")]


@pytest.mark.parametrize("name", NAMES)
def test_help_tells_what_a_command_does_and_means_by_its_options(name: str) -> None:
    done = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"})
    command = dict(commands())[name]

    assert done.exit_code == 0
    assert f"headrace {name}".strip() in done.output
    assert command.help
    assert [
        p.name for p in command.params if p.param_type_name == "option" and not (p.help or name == "simulate")
    ] == []


@pytest.mark.parametrize("name", [name for name in LEAVES if name not in WITHOUT_JSON])
def test_every_command_speaks_json(name: str) -> None:
    options = [option for parameter in dict(commands())[name].params for option in parameter.opts]

    assert "--json" in options


@pytest.mark.parametrize("arguments", [[], ["models"], ["workflows"], ["samples"], ["features"]])
def test_a_group_alone_shows_its_commands(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)

    assert "Commands" in done.output
    assert "headrace:" not in done.output


def test_an_unknown_command_is_told_in_one_line() -> None:
    done = CliRunner().invoke(app, ["recomend"])

    assert done.exit_code == 2
    assert done.stderr.startswith("headrace: No such command 'recomend'")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, None),
        ("15m", NOON_MS - 900_000),
        ("2d", NOON_MS - 2 * 86_400_000),
        ("2026-01-31T12:00", NOON_MS),
        ("2026-01-31T20:00+08:00", NOON_MS),
        (str(NOON_MS), NOON_MS),
    ],
)
def test_time_is_told_as_ago_as_iso_or_as_ms(text: str | None, wanted: int | None) -> None:
    assert moment(text, "--since", NOW) == wanted


@pytest.mark.parametrize("text", ["", "soon", "15", "15w", "2026-13-01"])
def test_another_time_is_refused(text: str) -> None:
    with pytest.raises(WrongUsageError, match="--since"):
        moment(text, "--since", NOW)


def counts(**changed: int) -> dict[str, int]:
    told = {"impressions": 10, "joined": 6, "positive": 2, "negative": 4, "orphaned": 1, "duplicate": 1, "pending": 2,
            "rows": 6, "positive_rows": 2}  # fmt: skip
    return told | changed


@pytest.mark.parametrize(
    ("changed", "faults"),
    [
        ({}, []),
        ({"impressions": 11}, ["11 impressions, but 10 joined, orphaned, duplicate and pending"]),
        ({"positive": 3}, ["6 joined, but 7 positive and negative", "2 positive rows, but 3 positive"]),
        ({"rows": 7}, ["7 rows, but 6 joined"]),
        ({"rows": 5, "positive_rows": 1}, []),  # a day was dropped, a user erased
    ],
)
def test_audit_names_the_sum_that_does_not_hold(changed: dict[str, int], faults: list[str]) -> None:
    assert audited(counts(**changed)).faults == faults


def test_newest_value_of_a_metric_counts_and_slices_are_apart() -> None:
    recorded: list[Mapping[str, Any]] = [
        {"name": "logloss", "value": 0.2, "time": 5, "slice": "all"},
        {"name": "logloss", "value": 0.3, "time": 2, "slice": ""},
        {"name": "logloss", "value": 0.9, "time": 5, "slice": "page 100"},
        {"name": "auc", "value": None, "time": 5, "slice": ""},
    ]

    assert latest({"metrics": {"logloss": 0.4}}, recorded) == {"logloss": 0.2, "logloss of page 100": 0.9}
