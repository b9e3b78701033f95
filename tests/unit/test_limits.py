"""What one pass may remove: never more than the caps, shared fairly among kinds, the longest unused first."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.cache.judged import Judged
from basekeeper.cache.limits import oldest_first, throttled
from basekeeper.cache.names import Kind
from basekeeper.cache.settings import Limits
from basekeeper.cache.verdicts import EVICTION_REASONS, Reason, Verdict
from tests.unit.judging import DAY, NOW, cached, original

MIB = 1 << 20
OF_KIND: dict[Kind, Callable[[int], bytes]] = {
    Kind.ORIGINAL: original,
    Kind.RESIZED: lambda number: original(number) + b"_20",
    Kind.SWAP: lambda number: b"swap_%d" % (number + 1),
    Kind.EPHEMERAL: lambda number: b"ephemeral_%d_0706d66" % (number + 1),
    Kind.PARTIAL: lambda number: original(number) + b".part",
}


def old(kind: Kind, number: int, days: float, size: int = 1, reason: Reason = Reason.EXPIRED) -> Judged:
    """A file that may go, unused for so many days and so many MiB large."""
    file = cached(OF_KIND[kind](number), age=days * DAY, size=size * MIB)
    assert file.name.kind is kind
    return Judged(file, Verdict.REMOVE, reason, "why", unused_since=NOW - days * DAY)


def some(kind: Kind, count: int, days: float, size: int = 1) -> list[Judged]:
    """Files of one kind, each a day older than the one before it."""
    return [old(kind, number, days + number, size) for number in range(count)]


def limits(**given: Any) -> Limits:
    return Limits(**{"max_files": 10**9, "max_percent": 100, **given})


def gone(files: Sequence[Judged], given: Limits) -> dict[str, list[int]]:
    """By kind, how long the files that may go have been unused, in days, the longest first."""
    found: dict[str, list[int]] = {}
    for item in sorted(throttled(files, given), key=oldest_first):
        if item.verdict is Verdict.REMOVE:
            found.setdefault(item.file.name.kind.value, []).append(round((NOW - (item.unused_since or 0)) / DAY))
    return found


CASES: dict[str, tuple[list[Judged], Limits, dict[str, list[int]]]] = {
    "two kinds, each its half": (
        some(Kind.PARTIAL, 9, 100) + some(Kind.ORIGINAL, 9, 10), limits(max_files=4),
        {"Partial": [108, 107], "Original": [18, 17]},
    ),
    "what one kind does not need goes to the other": (
        some(Kind.PARTIAL, 9, 100) + some(Kind.ORIGINAL, 1, 10), limits(max_files=4),
        {"Partial": [108, 107, 106], "Original": [10]},
    ),
    "what is left over goes to the longest unused": (
        some(Kind.SWAP, 9, 50) + some(Kind.PARTIAL, 9, 100) + some(Kind.ORIGINAL, 9, 10), limits(max_files=5),
        {"Partial": [108, 107, 106], "Swap": [58], "Original": [18]},
    ),
    "fewer than there are kinds": (
        some(Kind.SWAP, 9, 50) + some(Kind.PARTIAL, 9, 100) + some(Kind.ORIGINAL, 9, 10), limits(max_files=2),
        {"Partial": [108, 107]},
    ),
    "bytes are shared as well": (
        some(Kind.PARTIAL, 9, 100, size=10) + some(Kind.ORIGINAL, 9, 10, size=40), limits(max_bytes=80 * MIB),
        {"Partial": [108, 107, 106, 105], "Original": [18]},
    ),
    "a file larger than its kind's part goes if there is room left over": (
        some(Kind.PARTIAL, 2, 100, size=10) + some(Kind.ORIGINAL, 2, 10, size=70), limits(max_bytes=100 * MIB),
        {"Partial": [101, 100], "Original": [11]},
    ),
    "nothing passes by an older one of its kind that does not fit": (
        [old(Kind.ORIGINAL, 1, 20, 90), old(Kind.ORIGINAL, 2, 10, 1), *some(Kind.SWAP, 1, 30, size=20)],
        limits(max_bytes=100 * MIB),
        {"Swap": [30]},
    ),
    "one that is larger than all that may go does go, when it is the longest unused": (
        [old(Kind.ORIGINAL, 1, 50, 90), *some(Kind.SWAP, 3, 10)], limits(max_bytes=80 * MIB),
        {"Original": [50]},
    ),
    "what goes for the disk's sake goes first, whatever else is older": (
        [*some(Kind.PARTIAL, 3, 100), old(Kind.ORIGINAL, 1, 2, reason=Reason.PRESSURE),
         old(Kind.ORIGINAL, 2, 3, reason=Reason.OVER_BUDGET)], limits(max_files=3),
        {"Partial": [102], "Original": [3, 2]},
    ),
    "a corrupt base goes before all that, for the next machine may be built on it": (
        [*some(Kind.PARTIAL, 3, 100), old(Kind.ORIGINAL, 1, 3, reason=Reason.PRESSURE),
         old(Kind.ORIGINAL, 2, 1, reason=Reason.CORRUPT)], limits(max_files=1),
        {"Original": [1]},
    ),
    "what goes for the disk's sake is capped too": (
        [old(Kind.ORIGINAL, number, number + 1, reason=Reason.PRESSURE) for number in range(5)],
        limits(max_files=2), {"Original": [5, 4]},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "given", "expected"), CASES.values(), ids=CASES)
def test_kinds_share_what_one_pass_may_remove(
    files: list[Judged], given: Limits, expected: dict[str, list[int]]
) -> None:
    assert gone(files, given) == expected


def test_what_waits_says_how_many_go_before_it() -> None:
    files = throttled(some(Kind.PARTIAL, 2, 100) + some(Kind.SWAP, 3, 10), limits(max_files=2))
    waiting = [item for item in files if item.verdict is Verdict.HOLD]
    assert {(item.reason, item.message) for item in waiting} == {
        (Reason.LIMIT_REACHED, "2 go in this pass, the longest unused of each kind first; 3 wait for the next")
    }


# --- whatever lies there ----------------------------------------------------------------------------------------------

reasons = st.sampled_from([Reason.EXPIRED] * 4 + sorted(EVICTION_REASONS))


@st.composite
def caches(draw: st.DrawFn, *, reasons: st.SearchStrategy[Reason] = reasons) -> list[Judged]:
    """Files of any kinds, sizes and ages that may all go, and some that may not."""
    numbers = draw(st.lists(st.tuples(st.sampled_from(sorted(OF_KIND)), st.integers(0, 30)), unique=True, max_size=40))
    ages, sizes = st.integers(1, 20), st.sampled_from([0, 1, 2, 10, 100])
    files = [old(kind, number, draw(ages), draw(sizes), draw(reasons)) for kind, number in numbers]
    kept = draw(st.integers(0, 5))
    young = [old(Kind.ORIGINAL, 100 + number, 1) for number in range(kept)]
    return files + [replace(item, verdict=Verdict.KEEP, reason=Reason.TOO_YOUNG) for item in young]


caps = st.builds(
    Limits, st.integers(0, 40), st.none() | st.integers(1, 300).map(lambda size: size * MIB), st.integers(1, 100)
)


def most_files(files: Sequence[Judged], given: Limits) -> int:
    return max(1, min(given.max_files, len(files) * given.max_percent // 100))


def going(files: Sequence[Judged]) -> list[Judged]:
    return [item for item in files if item.verdict is Verdict.REMOVE]


@given(caches(), caps)
def test_a_pass_stays_within_its_caps_but_for_the_one_file_that_may_always_go(
    files: list[Judged], given: Limits
) -> None:
    let_go = going(throttled(files, given))
    assert bool(let_go) == bool(going(files))
    assert len(let_go) <= most_files(files, given)
    if given.max_bytes is not None and len(let_go) > 1:
        assert sum(item.file.reclaimable for item in let_go) <= given.max_bytes


@given(caches(reasons=st.just(Reason.EXPIRED)), caps)
def test_each_kind_gets_its_part_of_the_files_or_all_that_it_has(files: list[Judged], given: Limits) -> None:
    given = replace(given, max_bytes=None)
    let_go, kinds = going(throttled(files, given)), {item.file.name.kind for item in going(files)}
    for kind in kinds:
        wanted = sum(item.file.name.kind is kind for item in going(files))
        got = sum(item.file.name.kind is kind for item in let_go)
        assert got >= min(wanted, most_files(files, given) // len(kinds))
    assert len(let_go) == min(most_files(files, given), len(going(files))), "nothing is left unused"


@given(caches(reasons=st.just(Reason.EXPIRED)), st.integers(1, 300))
def test_each_kind_gets_its_part_of_the_bytes_or_all_that_fits_into_it(files: list[Judged], size: int) -> None:
    cap = size * MIB
    let_go, kinds = going(throttled(files, limits(max_bytes=cap))), {item.file.name.kind for item in going(files)}
    oldest = min(going(files), key=oldest_first, default=None)
    if oldest is not None and oldest.file.reclaimable > cap // len(kinds):
        return  # the one that may always go takes from the others
    for kind in kinds:
        queue = sorted((item for item in going(files) if item.file.name.kind is kind), key=oldest_first)
        part = cap // len(kinds)
        for item in queue:
            part -= item.file.reclaimable
            if part < 0:
                break
            assert item.file.name in {gone_.file.name for gone_ in let_go}


@given(caches(), caps)
def test_within_a_kind_the_longest_unused_go_first_and_evictions_before_all(files: list[Judged], given: Limits) -> None:
    judged = throttled(files, given)
    let_go = {item.file.name.raw for item in going(judged)}
    urgent = sorted((item for item in going(files) if item.reason in EVICTION_REASONS), key=oldest_first)
    by_age = [item for item in going(files) if item.reason not in EVICTION_REASONS]
    queues = [urgent, *(sorted((i for i in by_age if i.file.name.kind is kind), key=oldest_first) for kind in OF_KIND)]
    for queue in queues:
        gone_ = [item.file.name.raw in let_go for item in queue]
        assert gone_ == sorted(gone_, reverse=True)
    if any(item.file.name.raw not in let_go for item in urgent):
        assert not let_go & {item.file.name.raw for item in by_age}


@given(caches(), caps, st.randoms(use_true_random=False))
def test_the_same_cache_loses_the_same_files_in_whatever_order_it_is_read(
    files: list[Judged], given: Limits, random: Any
) -> None:
    mixed = files[:]
    random.shuffle(mixed)
    assert {item.file.name: item for item in throttled(mixed, given)} == {
        item.file.name: item for item in throttled(files, given)
    }


@given(caches(reasons=st.just(Reason.EXPIRED)), caps)
def test_pass_after_pass_everything_goes(files: list[Judged], given: Limits) -> None:
    left = files
    for _ in range(len(files) + 1):
        let_go = {item.file.name for item in going(throttled(left, given))}
        left = [item for item in left if item.file.name not in let_go]
    assert going(left) == []
