"""API keys: entries, rings of them that follow their files, and who is let in."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from headrace_core.settings import ApiSettings
from headrace_core.web.guard import Guard, open_guard
from headrace_core.web.keyring import Keyring
from headrace_core.web.keys import SCOPES, KeysError, digest_of, entry, new_key, parse
from headrace_core.web.limits import Buckets
from headrace_core.web.problem import ProblemError

NOW = 1_800_000_000_000


def a_request(key: str | None, address: str = "192.0.2.1") -> dict[str, Any]:
    headers = [(b"host", b"x")] + ([(b"authorization", f"Bearer {key}".encode())] if key is not None else [])
    return {"type": "http", "headers": headers, "client": (address, 1)}


def refused(guard: Guard, request: dict[str, Any], needs: str) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        guard.admit(request, needs)
    return caught.value


def test_keys_are_long_different_and_tell_themselves_apart_from_other_words() -> None:
    made = {new_key() for _ in range(100)}

    assert len(made) == 100
    assert all(key.startswith("hr_") and len(key) == 46 for key in made)


def test_entry_is_read_as_it_was_written_and_does_not_hold_the_key() -> None:
    key = new_key()

    line = entry("shop", ["events", "catalog"], key, datetime(2027, 1, 31, tzinfo=UTC))
    (read,) = parse(f"# of the shop\n\n{line}\n", "keys")

    assert key not in line
    assert key.removeprefix("hr_") not in line
    assert (read.name, read.digest, read.scopes) == ("shop", digest_of(key.encode()), frozenset({"events", "catalog"}))
    assert read.expires == datetime(2027, 1, 31, tzinfo=UTC).timestamp() * 1000


def test_entries_of_a_variable_are_separated_by_semicolons() -> None:
    lines = [entry(name, ["events"], new_key()) for name in ("a", "b")]

    assert [key.name for key in parse(" ; ".join(lines), "keys")] == ["a", "b"]


def test_admin_holds_every_scope() -> None:
    (key,) = parse(entry("ops", ["admin"], new_key()), "keys")

    assert key.scopes == set(SCOPES)


SECRET = "hr_" + "s" * 43


@pytest.mark.parametrize(
    "line",
    [
        SECRET,
        f"shop events {SECRET}",
        f"shop {SECRET} sha256:{'0' * 64}",
        f"{SECRET}/ events sha256:{'0' * 64}",
        f"shop events sha256:{'0' * 63}",
        f"shop events sha256:{'0' * 64} {SECRET}",
        f"shop events sha256:{'0' * 64} expires=tomorrow",
        f"shop events sha256:{'0' * 64} expires=2027-01-31 more",
    ],
)
def test_wrong_entry_is_told_by_its_place_and_never_by_its_words(line: str) -> None:
    with pytest.raises(KeysError, match=r"keys\.txt, line 2") as caught:
        parse(f"# first\n{line}", "keys.txt")

    assert "ssss" not in str(caught.value)
    assert "tomorrow" not in str(caught.value)


def test_same_key_under_two_entries_is_refused() -> None:
    key = new_key()

    with pytest.raises(KeysError, match="a and b are one key"):
        Keyring(";".join(entry(name, ["events"], key) for name in "ab"))


def replaced(file: Path, text: str) -> None:
    """Put another file in its place, as an editor and a mounted secret do."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)


def test_ring_follows_its_file(tmp_path: Path) -> None:
    old, new = new_key(), new_key()
    file = tmp_path / "keys"
    file.write_text(entry("shop", ["events"], old), encoding="utf-8")
    ring = Keyring(source=file)

    replaced(file, f"{entry('shop', ['events'], old)}\n{entry('shop', ['events'], new)}\n")
    ring.look()
    both = [ring.find(key.encode()) is not None for key in (old, new)]
    replaced(file, entry("shop", ["events"], new))
    ring.look()

    assert both == [True, True]
    assert ring.find(old.encode()) is None
    assert ring.find(new.encode()) is not None


def test_file_that_is_emptied_lets_nobody_in_and_one_that_is_wrong_or_gone_changes_nothing(tmp_path: Path) -> None:
    key = new_key()
    file = tmp_path / "keys"
    file.write_text(entry("shop", ["events"], key), encoding="utf-8")
    ring = Keyring(source=file)
    known = []

    for text in ("no entry", None, ""):
        if text is None:
            file.unlink()
        else:
            replaced(file, text)
        ring.look()
        known.append(ring.find(key.encode()) is not None)

    assert known == [True, True, False]


def test_folder_is_read_as_a_mounted_secret_is(tmp_path: Path) -> None:
    keys = {name: new_key() for name in ("shop", "ops")}
    versions = tmp_path / "..2027"
    versions.mkdir()
    for name, key in keys.items():
        (versions / name).write_text(entry(name, ["events"], key), encoding="utf-8")
        (tmp_path / name).symlink_to(versions / name)

    ring = Keyring(source=tmp_path)

    assert len(ring) == 2
    assert {ring.find(key.encode()) is not None for key in keys.values()} == {True}


def test_minted_key_lives_through_a_change_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("", encoding="utf-8")
    ring = Keyring(source=file)

    minted = ring.mint("(console)")
    replaced(file, entry("shop", ["events"], new_key()))
    ring.look()

    assert ring.find(minted.encode()) is not None
    assert len(ring) == 1


def test_good_key_is_let_in_by_its_name() -> None:
    key = new_key()

    assert Guard(Keyring(entry("shop", ["events"], key))).admit(a_request(key), "events") == "shop"


@pytest.mark.parametrize(
    ("presented", "says"),
    [(None, "a key is needed"), (new_key(), "not known"), ("", "not known"), ("\N{SNOWMAN}", "not known")],
)
def test_none_and_unknown_keys_are_answered_401(presented: str | None, says: str) -> None:
    guard = Guard(Keyring(entry("shop", ["events"], new_key())))

    problem = refused(guard, a_request(presented), "events")

    assert problem.status == 401
    assert says in problem.detail
    assert problem.headers["www-authenticate"].startswith("Bearer ")


def test_another_kind_of_authorization_is_no_key() -> None:
    key = new_key()
    request = a_request(None) | {"headers": [(b"authorization", b"Basic " + key.encode())]}

    assert refused(Guard(Keyring(entry("shop", ["events"], key))), request, "events").status == 401


def test_key_is_good_before_it_expires_and_not_at_that_moment() -> None:
    key = new_key()
    moment = datetime.fromtimestamp(NOW / 1000, UTC)
    clock = iter([NOW - 1, NOW])
    guard = Guard(Keyring(entry("shop", ["events"], key, moment)), clock_ms=lambda: next(clock))

    assert guard.admit(a_request(key), "events") == "shop"
    problem = refused(guard, a_request(key), "events")
    assert (problem.status, "shop has expired" in problem.detail) == (401, True)


def test_narrow_key_is_answered_403_with_the_scope_that_is_needed() -> None:
    key = new_key()

    problem = refused(Guard(Keyring(entry("shop", ["events"], key))), a_request(key), "catalog")

    assert problem.status == 403
    assert problem.extra == {"scope": "catalog"}
    assert 'scope="catalog"' in problem.headers["www-authenticate"]


def test_no_refusal_tells_the_key() -> None:
    key, narrow = new_key(), new_key()
    guard = Guard(Keyring(entry("shop", ["events"], narrow)))

    for presented in (key, narrow):
        problem = refused(guard, a_request(presented), "admin")
        assert presented not in f"{problem.detail}{problem.headers}{problem.body()!r}"


def test_bucket_gives_its_burst_and_then_its_rate() -> None:
    buckets = Buckets(rate=10, burst=3)

    at_once = [buckets.take("a", 0.0) is None for _ in range(4)]
    refusal = buckets.take("a", 0.05)
    later = [buckets.take("a", 0.1) is None, buckets.take("a", 0.1) is None]

    assert at_once == [True, True, True, False]
    assert refusal is not None
    assert refusal.wait_seconds == pytest.approx(0.05)
    assert later == [True, False]


def test_buckets_of_callers_that_came_once_are_forgotten() -> None:
    buckets = Buckets(rate=1, burst=2)

    for n in range(30_000):
        assert buckets.take(f"caller {n}", n / 1_000) is None

    assert len(buckets._levels) <= 10_000


def test_keys_have_buckets_of_their_own_by_name_and_addresses_where_there_are_no_keys() -> None:
    keys = [new_key() for _ in range(3)]
    ring = Keyring(";".join(entry(name, ["events"], key) for name, key in zip(("a", "a", "b"), keys, strict=True)))
    guard = Guard(ring, Buckets(1, 1), steady=lambda: 0.0)
    guard.admit(a_request(keys[0]), "events")
    open_to_all = Guard(None, Buckets(1, 1), steady=lambda: 0.0)
    open_to_all.admit(a_request(None), "events")

    problem = refused(guard, a_request(keys[1]), "events")

    assert (problem.status, problem.headers["retry-after"]) == (429, "1")
    assert {"ratelimit", "ratelimit-policy"} <= problem.headers.keys()
    assert guard.admit(a_request(keys[2]), "events") == "b"
    assert refused(open_to_all, a_request(None), "events").status == 429
    assert open_to_all.admit(a_request(None, "192.0.2.2"), "events") == ""


def test_calls_of_a_process_to_itself_have_no_limit() -> None:
    guard = Guard(Keyring(entry("shop", ["events"], new_key())), Buckets(1, 1), steady=lambda: 0.0)
    own = guard.mint("(console)")

    assert {guard.admit(a_request(own), "admin") for _ in range(5)} == {"(console)"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "headrace.example"])
def test_without_a_key_only_loopback_is_listened_on(host: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# none yet\n", encoding="utf-8")

    for settings in (ApiSettings(), ApiSettings(api_keys_file=tmp_path / "empty")):
        open_guard(settings, "127.0.0.1", "it")
        with pytest.raises(KeysError, match="without API keys it listens on loopback only"):
            open_guard(settings, host, "it")


def test_empty_file_of_keys_lets_nobody_in_on_loopback(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("", encoding="utf-8")

    guard = open_guard(ApiSettings(api_keys_file=tmp_path / "empty"), "127.0.0.1", "it")

    assert refused(guard, a_request(new_key()), "events").status == 401


def test_missing_file_of_keys_ends_a_start(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="none: No such file"):
        open_guard(ApiSettings(api_keys_file=tmp_path / "none"), "127.0.0.1", "it")
