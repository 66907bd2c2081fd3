"""The folder of a stack."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from headrace_stack import layout as layout_module
from headrace_stack.keeper import describe, write_json
from headrace_stack.layout import Layout, StackError


def test_folders_are_for_their_user_only(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home")

    layout.make()

    for folder in (layout.home, layout.data, layout.logs):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_full_disk_is_told_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module, "NEED_BYTES", 1 << 62)
    layout = Layout(tmp_path / "home")

    with pytest.raises(StackError, match=r"has \d+ MiB free, the stack needs"):
        layout.make()

    assert not layout.home.exists()


def test_sockets_of_a_deep_home_are_in_a_short_folder() -> None:
    deep = Layout(Path("/" + "/".join(["folder"] * 20)))

    assert len(str(deep.sockets / "control.sock")) < 108
    assert deep.sockets != Layout(deep.home / "other").sockets
    assert Layout(Path("/home/one")).sockets == Path("/home/one")


def test_lock_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    other = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"

    def can_lock() -> bool:
        command = [sys.executable, "-c", other, str(tmp_path / "lock")]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    with layout.locked():
        assert not can_lock()
    assert can_lock()


def test_written_file_is_replaced_whole_and_for_its_user_only(tmp_path: Path) -> None:
    file = tmp_path / "stack.json"
    write_json(file, {"a": 1})

    write_json(file, {"a": 2})

    assert file.read_text() == '{\n  "a": 2\n}\n'
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_stack_file_names_addresses_and_what_runs() -> None:
    parts = [
        {"name": "kafka", "service": "kafka", "replica": 0, "metrics": None},
        {"name": "gateway-0", "service": "gateway", "replica": 0, "metrics": "http://127.0.0.1:4"},
        {"name": "sample-joiner-1", "service": "sample-joiner", "replica": 1, "metrics": "http://127.0.0.1:5"},
    ]
    plan = {"profile": "demo", "addresses": {"kafka": "127.0.0.1:1"}, "parts": parts}

    told = describe(plan, {"kafka": 10, "gateway-0": 11})

    assert told == {
        "kafka": "127.0.0.1:1",
        "profile": "demo",
        "processes": [
            {"service": "kafka", "replica": 0, "pid": 10},
            {"service": "gateway", "replica": 0, "pid": 11, "metrics": "http://127.0.0.1:4"},
        ],
    }
