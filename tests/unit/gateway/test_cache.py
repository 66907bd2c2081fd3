from headrace_gateway.catalog.cache import MomentCache


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def a_cache(clock: Clock, keep: float = 1.0, entries: int = 10) -> MomentCache[int]:
    return MomentCache(keep, entries, clock)


def test_value_is_kept_for_a_moment() -> None:
    clock = Clock()
    cache = a_cache(clock)
    cache.put({"a": 1}, cache.generation)

    assert cache.pick({"a", "b"}) == ({"a": 1}, ["b"])
    clock.now += 1.0
    assert cache.pick({"a"}) == ({}, ["a"])


def test_value_read_before_an_invalidation_is_not_kept() -> None:
    cache = a_cache(Clock())
    generation = cache.generation
    cache.invalidate(["a"])

    cache.put({"a": 1}, generation)

    assert cache.pick({"a"}) == ({}, ["a"])


def test_invalidated_value_is_forgotten_and_others_stay() -> None:
    cache = a_cache(Clock())
    cache.put({"a": 1, "b": 2}, cache.generation)

    cache.invalidate(["a"])

    assert cache.pick({"a", "b"}) == ({"b": 2}, ["a"])


def test_nothing_is_kept_for_no_time() -> None:
    cache = a_cache(Clock(), keep=0)

    cache.put({"a": 1}, cache.generation)

    assert cache.pick({"a"}) == ({}, ["a"])


def test_entries_are_bounded() -> None:
    cache = a_cache(Clock(), entries=10)
    for n in range(100):
        cache.put({str(n): n}, cache.generation)

    known, _ = cache.pick({str(n) for n in range(100)})

    assert 1 <= len(known) <= 10
    assert known["99"] == 99
