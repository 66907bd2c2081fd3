"""The Open Bandit logs by files of the same form, made here."""

import io
import tarfile
from pathlib import Path

import pytest
from headrace_stack.commands.terminal import CommandError
from headrace_stack.replay.delay import drawn_delay
from headrace_stack.replay.open_bandit import CAMPAIGNS, POLICIES, OpenBandit, obtain

HEAD = (
    ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user_feature_2,user_feature_3,"
    "user-item_affinity_0"
)


def lay(folder: Path, changed: dict[str, str] | None = None) -> Path:
    """Two rows a file; a file of `changed` has other content."""
    for policy in POLICIES:
        for campaign in CAMPAIGNS:
            there = folder / policy / campaign
            there.mkdir(parents=True)
            minute = POLICIES.index(policy) + 2 * CAMPAIGNS.index(campaign)
            rows = [
                f"0,2019-11-24 00:0{minute}:00.500000+00:00,1,3,0,0.5,a,b,c,{campaign},0.0",
                f"1,2019-11-24 01:0{minute}:00+00:00,0,1,1,0.5,a,b,c,d,0.0",
            ]
            text = (changed or {}).get(f"{policy}/{campaign}") or "\n".join([HEAD, *rows, ""])
            (there / f"{campaign}.csv").write_text(text, encoding="utf-8")
            (there / "item_context.csv").write_text(
                ",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3\n0,0,-0.5,x1,y,z\n1,1,0.5,x2,y,z\n",
                encoding="utf-8",
            )
    return folder


def log_of(folder: Path, limit: int | None = None) -> OpenBandit:
    return OpenBandit(folder, drawn_delay(1), limit)


def test_files_are_merged_by_time_and_each_row_ranks_its_campaign(tmp_path: Path) -> None:
    log = log_of(lay(tmp_path))

    slates = list(log.slates())

    assert [s.source for s in slates[:3]] == ["random/all", "bts/all", "random/men"]
    assert [s.at_ms for s in slates] == sorted(s.at_ms for s in slates)
    first = slates[0]
    shown = first.shown[0]
    assert first.candidates == ["all/0", "all/1"]
    assert (shown.row, shown.item_id, shown.position, shown.propensity, shown.click_after_s) == (
        2,
        "all/1",
        2,
        0.5,
        None,
    )
    assert [s.shown[0].click_after_s is not None for s in slates] == [False] * 6 + [True] * 6
    assert {s.source for s in slates if s.judged} == {"random/all", "random/men", "random/women"}
    assert log.rows == 12


def test_user_is_who_shares_the_four_features(tmp_path: Path) -> None:
    slates = list(log_of(lay(tmp_path)).slates())

    assert len({s.user_id for s in slates[:6]}) == 3
    assert len({s.user_id for s in slates[6:]}) == 1
    told = [user.user_id for s in slates for user in s.users]
    assert sorted(told) == sorted({s.user_id for s in slates})


def test_items_are_told_before_they_are_ranked(tmp_path: Path) -> None:
    known: set[str] = set()
    for slate in log_of(lay(tmp_path)).slates():
        known |= {item.item_id for item in slate.items}
        assert set(slate.candidates) <= known


def test_bad_rows_are_told_with_file_and_line(tmp_path: Path) -> None:
    bad = f"{HEAD}\n0,never,1,3,0,0.5,a,b,c,d,0\n1,2019-11-24 00:00:00+00:00,1,0,0,0.5,a,b,c,d,0\n2,2019\n"
    log = log_of(lay(tmp_path, {"bts/men": bad}))

    slates = list(log.slates())

    assert len(slates) == 10
    assert log.faults.count == 3
    assert [fault.split(":")[0] for fault in sorted(log.faults.first)] == [f"bts/men line {n}" for n in (2, 3, 4)]


def test_limit_takes_the_first_rows_of_each_file(tmp_path: Path) -> None:
    log = log_of(lay(tmp_path), limit=1)

    assert len(list(log.slates())) == log.rows == 6
    assert log.fingerprint != log_of(tmp_path).fingerprint


@pytest.mark.parametrize("inside", ["", "obd", "obp/dataset/obd"])
def test_folder_is_found_at_or_below_the_one_named(tmp_path: Path, inside: str) -> None:
    lay(tmp_path / inside)

    assert obtain(tmp_path) == tmp_path / inside


def test_source_distribution_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CHECKOUT", str(tmp_path / "checkout"))
    lay(tmp_path / "obd")
    archive = tmp_path / "obp-0.5.7.tar.gz"
    with tarfile.open(archive, "w:gz") as target:
        target.add(tmp_path / "obd", "obp-0.5.7/obp/dataset/obd")
        evil = tarfile.TarInfo("../evil.csv")
        target.addfile(evil, io.BytesIO())

    folder = obtain(archive)

    assert len(list(log_of(folder).slates())) == 12
    assert obtain(archive) == folder
    assert not list(tmp_path.rglob("evil.csv"))


def test_what_holds_no_logs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CHECKOUT", str(tmp_path / "checkout"))
    (tmp_path / "file.tar.gz").write_bytes(b"nonsense")

    with pytest.raises(CommandError, match=r"obp-0\.5\.7\.tar\.gz"):
        obtain(tmp_path)
    with pytest.raises(CommandError, match="source distribution"):
        obtain(tmp_path / "file.tar.gz")
