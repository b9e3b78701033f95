"""What is due when, and what the sum of it all says: values only."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.cache.settings import Algorithm
from basekeeper.cache.wholeness import Baseline, Candidate, Finding, Flaw, Known, State, next_of, summed
from tests.unit.judging import DAY, HOUR, NOW, ORIGINAL, OTHER, SWAP

WEEK = 7 * DAY


def candidate(name: bytes, size: int = 1 << 30) -> Candidate:
    return Candidate(name, f"1:{name.hex()}", size)


def baseline(name: bytes, verified_at: float) -> Baseline:
    return Baseline(f"1:{name.hex()}", name, Algorithm.XXH3, 4096, "ab" * 16, NOW - 30 * DAY, verified_at)


def finding(name: bytes, flaw: Flaw = Flaw.CORRUPT, *, found_at: float = NOW, checked_at: float = NOW) -> Finding:
    return Finding(f"1:{name.hex()}", name, flaw, "it is damaged", (0,), found_at, checked_at)


def known(*facts: Baseline | Finding) -> Known:
    return Known(
        {item.identity: item for item in facts if isinstance(item, Baseline)},
        {item.identity: item for item in facts if isinstance(item, Finding)},
    )


# --- what is due ---------------------------------------------------------------------------------------------------


def test_what_was_never_read_comes_before_all_else_at_once() -> None:
    facts = known(baseline(ORIGINAL, NOW - 30 * DAY))
    chosen, wait = next_of([candidate(ORIGINAL), candidate(SWAP)], facts, WEEK, NOW)
    assert (chosen, wait) == (candidate(SWAP), 0.0)


def test_a_file_is_due_when_its_interval_is_over() -> None:
    facts = known(baseline(ORIGINAL, NOW - WEEK), baseline(SWAP, NOW))
    chosen, _ = next_of([candidate(ORIGINAL), candidate(SWAP, 1 << 60)], facts, WEEK, NOW)
    assert chosen == candidate(ORIGINAL)


def test_files_that_were_read_together_are_not_read_together_again() -> None:
    names = [ORIGINAL, OTHER, SWAP]
    facts = known(*(baseline(name, NOW) for name in names))
    chosen, wait = next_of([candidate(name) for name in names], facts, WEEK, NOW)
    assert chosen is None
    assert wait == pytest.approx(WEEK / 3, rel=0.01)


def test_a_file_that_could_not_be_read_waits_for_its_turn_like_the_others() -> None:
    facts = known(finding(ORIGINAL, Flaw.UNREADABLE, checked_at=NOW - HOUR))
    assert next_of([candidate(ORIGINAL)], facts, WEEK, NOW) == (None, WEEK - HOUR)


def test_a_clock_that_was_put_back_makes_nothing_wait_for_longer_than_an_interval() -> None:
    facts = known(baseline(ORIGINAL, NOW + 100 * WEEK))
    _, wait = next_of([candidate(ORIGINAL)], facts, WEEK, NOW)
    assert wait == WEEK


def test_without_files_nothing_is_due() -> None:
    assert next_of([], known(), WEEK, NOW) == (None, WEEK)


@given(sizes=st.lists(st.integers(0, 1 << 45), min_size=1, max_size=12), turns=st.integers(30, 60))
def test_each_file_is_read_once_an_interval_and_the_reading_is_spread_over_it(sizes: list[int], turns: int) -> None:
    files = [candidate(b"%d" % number, size) for number, size in enumerate(sizes)]
    read_at = dict.fromkeys(files, NOW)
    now, read = NOW, 0
    for _ in range(turns):
        facts = known(*(baseline(item.name, at) for item, at in read_at.items()))
        chosen, wait = next_of(files, facts, WEEK, now)
        if chosen is None:
            assert wait > 0
            now += wait
            continue
        assert now - read_at[chosen] <= WEEK * 1.001
        read_at[chosen] = now
        read += chosen.bytes
    assert all(now - at <= WEEK * 1.001 for at in read_at.values())
    # Over time no more is read than each file once an interval, but for those that are under way.
    assert read <= sum(sizes) * (math.ceil((now - NOW) / WEEK) + 1)


# --- the sum -------------------------------------------------------------------------------------------------------


def rows(*names: bytes) -> list[tuple[bytes, str, bool]]:
    return [(name, f"1:{name.hex()}", name in (ORIGINAL, OTHER)) for name in names]


STATES: dict[str, tuple[Known, bool, State]] = {
    "never read": (known(), False, State.PENDING),
    "as its baseline": (known(baseline(ORIGINAL, NOW)), True, State.WHOLE),
    "corrupt and unused": (known(baseline(ORIGINAL, NOW), finding(ORIGINAL)), False, State.CORRUPT),
    "corrupt and used": (known(baseline(ORIGINAL, NOW), finding(ORIGINAL)), True, State.CORRUPT_IN_USE),
    "unreadable": (known(baseline(ORIGINAL, NOW), finding(ORIGINAL, Flaw.UNREADABLE)), True, State.UNREADABLE),
    "never read and unreadable": (known(finding(ORIGINAL, Flaw.UNREADABLE)), True, State.UNREADABLE),
    "another file of its name was damaged": (known(finding(OTHER)), True, State.PENDING),
}


@pytest.mark.parametrize(("facts", "used", "state"), STATES.values(), ids=STATES)
def test_each_file_is_in_one_state(facts: Known, used: bool, state: State) -> None:
    found = summed(rows(ORIGINAL), facts, {ORIGINAL} if used else set(), WEEK, NOW)
    assert {each: count for each, count in found.states.items() if count} == {state: 1}


def test_only_whole_originals_have_digests_to_compare() -> None:
    facts = known(*(baseline(name, NOW) for name in (ORIGINAL, OTHER, SWAP)), finding(OTHER))
    found = summed(rows(ORIGINAL, OTHER, SWAP), facts, set(), WEEK, NOW)
    assert found.digests == {ORIGINAL.decode(): f"XXH3:4096:{'ab' * 16}"}


def test_what_was_not_verified_for_two_intervals_is_overdue_and_not_verified() -> None:
    facts = known(baseline(ORIGINAL, NOW - 2 * WEEK - 1), baseline(OTHER, NOW - 2 * WEEK + 1))
    found = summed(rows(ORIGINAL, OTHER), facts, set(), WEEK, NOW)
    assert (found.overdue, found.verified) == ((ORIGINAL.decode(),), 1)
    assert found.oldest_verified_at == NOW - 2 * WEEK - 1


def test_findings_of_files_that_are_gone_are_not_told() -> None:
    found = summed(rows(ORIGINAL), known(finding(OTHER)), set(), WEEK, NOW)
    assert found.findings == ()


def test_the_latest_finding_comes_first() -> None:
    facts = known(finding(ORIGINAL, found_at=NOW - 1), finding(OTHER, found_at=NOW))
    assert [item.name for item in summed(rows(ORIGINAL, OTHER), facts, set(), WEEK, NOW).findings] == [OTHER, ORIGINAL]
