"""Trips of the breaker: each anomaly by a name that stays, with what ends it, and an operator's word that ends one."""

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.cache.evidence import Usage
from basekeeper.cache.memory import Breaker, Directories, LastPass, Memory
from basekeeper.cache.plan import Plan
from basekeeper.cache.settings import MinimumAge, Policy
from basekeeper.cache.trips import TRIP_PATTERN, name_of
from basekeeper.cache.verdicts import ANOMALIES, Reason
from tests.unit.judging import DAY, DEAF, HOUR, NO_LIMITS, NOW, before, cached, judge, later, original, overlay, used

SIX = [original(number) for number in range(6)]
HOMELESS = Usage(homeless_domains=("domain 7", "domain 8"), local_domains=2)
OTHER = Memory(directories=Directories.OTHER, directories_message="mount the right ones")
VANISHED = Memory(breaker=Breaker(Reason.USERS_VANISHED, NOW - HOUR, frozenset(SIX)))
STANDING: dict[Reason, dict[str, Any]] = {
    Reason.OTHER_DIRECTORY: {"memory": OTHER},
    Reason.INSTANCES_VANISHED: {"usage": HOMELESS},
    Reason.USERS_VANISHED: {"memory": VANISHED},
    Reason.CLOCK_JUMPED: {"memory": Memory(clock=before(HOUR, jump=DAY))},
}
LASTING = sorted(ANOMALIES - {Reason.CLOCK_JUMPED})


def found(cause: Reason, *, since: float | None = None, words: Iterable[str] = (), **usage: Any) -> Plan:
    """The plan where this anomaly is seen; `since`: it stood after the last pass; `words` are an operator's."""
    given = STANDING[cause]
    memory = given.get("memory", Memory())
    if since is not None:
        memory = replace(memory, trips={cause: since})
    policy = Policy(limits=NO_LIMITS, reset_trips=frozenset(words))
    return judge(cached(), usage=replace(given.get("usage", Usage()), **usage), memory=memory, policy=policy)


def told(plan: Plan) -> list[str]:
    """What the notes are about."""
    return [note.about for note in plan.notes if note.about.startswith("Trip")]


@pytest.mark.parametrize("cause", STANDING, ids=str)
def test_each_anomaly_is_a_trip_with_what_was_seen_and_what_ends_it(cause: Reason) -> None:
    (trip,) = found(cause).trips
    assert (trip.cause, trip.since) == (cause, NOW)
    assert trip.name == f"{cause.value}-20270115T080000Z"
    assert re.fullmatch(TRIP_PATTERN, trip.name)
    assert trip.message == found(cause).holds[0].message
    assert trip.clears


def test_storage_of_others_and_suspend_open_no_breaker() -> None:
    assert judge(cached(), policy=Policy(suspend=True)).trips == ()


@pytest.mark.parametrize("cause", LASTING, ids=str)
def test_a_trip_that_goes_on_keeps_its_name(cause: Reason) -> None:
    (trip,) = found(cause, since=NOW - DAY).trips
    assert trip.since == NOW - DAY


def test_a_clock_that_jumps_again_is_another_trip() -> None:
    (trip,) = found(Reason.CLOCK_JUMPED, since=NOW - DAY).trips
    assert trip.since == NOW


def test_users_that_vanished_say_when_that_will_be_outlived() -> None:
    (trip,) = found(Reason.USERS_VANISHED).trips
    assert "at 2027-01-16T07:00:00Z if all evidence is complete until then" in trip.clears


def test_users_that_vanished_while_something_is_unknown_promise_no_time() -> None:
    (trip,) = found(Reason.USERS_VANISHED, unknown=(DEAF,)).trips
    assert "one minimumAge.original after all evidence is complete again" in trip.clears
    assert re.search(r"\d{4}-\d\d-\d\dT", trip.clears) is None


def test_incomplete_evidence_starts_the_time_anew_but_not_the_trip() -> None:
    plan = found(Reason.USERS_VANISHED, since=NOW - DAY, unknown=(DEAF,))
    assert (plan.trips[0].since, plan.breaker and plan.breaker.since) == (NOW - DAY, NOW)


@pytest.mark.parametrize("cause", [Reason.INSTANCES_VANISHED, Reason.USERS_VANISHED], ids=str)
def test_an_operator_s_word_ends_the_trip_that_it_names(cause: Reason) -> None:
    plan = found(cause, since=NOW - DAY, words=[name_of(cause, NOW - DAY)])
    assert (plan.trips, plan.breaker, told(plan)) == ((), None, ["TripReset"])
    assert [item.reason for item in plan.files] == [Reason.EXPIRED]


@pytest.mark.parametrize("cause", LASTING, ids=str)
@pytest.mark.parametrize(
    "word",
    [
        lambda cause: name_of(cause, NOW - DAY - 1),
        lambda _cause: name_of(Reason.CLOCK_JUMPED, NOW - DAY),
        lambda cause: cause.value,
    ],
    ids=["another time", "another cause", "no time"],
)
def test_a_word_about_another_trip_ends_nothing_and_is_told(cause: Reason, word: Any) -> None:
    plan = found(cause, since=NOW - DAY, words=[word(cause)])
    assert (plan.trips, told(plan)) == (found(cause, since=NOW - DAY).trips, ["TripUnknown"])
    assert plan.files[0].reason is cause


def test_a_word_about_a_trip_that_has_no_name_yet_ends_nothing() -> None:
    plan = found(Reason.USERS_VANISHED, words=[name_of(Reason.USERS_VANISHED, NOW)])
    assert [trip.cause for trip in plan.trips] == [Reason.USERS_VANISHED]


def test_a_word_ends_one_of_several_trips() -> None:
    trips = {Reason.USERS_VANISHED: NOW - DAY, Reason.INSTANCES_VANISHED: NOW - HOUR}
    word = name_of(Reason.USERS_VANISHED, NOW - DAY)
    plan = judge(
        cached(),
        usage=HOMELESS,
        memory=replace(VANISHED, trips=trips),
        policy=Policy(limits=NO_LIMITS, reset_trips=frozenset({word})),
    )
    assert [(trip.cause, trip.since) for trip in plan.trips] == [(Reason.INSTANCES_VANISHED, NOW - HOUR)]


def test_users_that_vanish_in_the_very_pass_of_a_word_about_the_last_time_open_another_trip() -> None:
    memory = replace(VANISHED, trips={Reason.USERS_VANISHED: NOW}, last_pass=LastPass(frozenset(SIX), 4))
    policy = Policy(limits=NO_LIMITS, reset_trips=frozenset({name_of(Reason.USERS_VANISHED, NOW)}))
    (trip,) = judge(usage=Usage(directories=4), memory=memory, policy=policy).trips
    assert trip.name == "UsersVanished-20270115T080001Z"


# --- domains whose directories may be gone ----------------------------------------------------------------------------

ACCEPTED = frozenset(HOMELESS.homeless_domains)
HOMES: dict[str, tuple[tuple[str, ...], frozenset[str], bool, frozenset[str]]] = {
    "the same": (("domain 7", "domain 8"), ACCEPTED, False, ACCEPTED),
    "one of them": (("domain 7",), ACCEPTED, False, frozenset({"domain 7"})),
    "one more": (("domain 7", "domain 8", "domain 9"), ACCEPTED, True, ACCEPTED),
    "another instead": (("domain 7", "domain 9"), ACCEPTED, True, frozenset({"domain 7"})),
    "none any more": ((), ACCEPTED, False, frozenset()),
    "nothing was accepted": (("domain 7",), frozenset(), True, frozenset()),
}


@pytest.mark.parametrize(("homeless", "accepted", "trips", "left"), HOMES.values(), ids=HOMES)
def test_a_word_about_vanished_instances_is_about_exactly_those(
    homeless: tuple[str, ...], accepted: frozenset[str], trips: bool, left: frozenset[str]
) -> None:
    usage = Usage(homeless_domains=homeless, local_domains=len(homeless))
    plan = judge(cached(), usage=usage, memory=Memory(accepted_homeless=accepted))
    assert bool(plan.trips) is trips
    assert plan.accepted_homeless == left


def test_a_word_about_vanished_instances_accepts_those_of_now() -> None:
    word = name_of(Reason.INSTANCES_VANISHED, NOW - DAY)
    assert found(Reason.INSTANCES_VANISHED, since=NOW - DAY, words=[word]).accepted_homeless == ACCEPTED


def test_a_libvirt_that_says_nothing_ends_no_trip_and_forgets_no_word() -> None:
    deaf = Usage(libvirt_failure="it hangs", unknown=(DEAF,))
    memory = Memory(trips={Reason.INSTANCES_VANISHED: NOW - DAY}, accepted_homeless=frozenset({"domain 9"}))
    plan = judge(cached(), usage=deaf, memory=memory)
    assert [trip.since for trip in plan.trips] == [NOW - DAY]
    assert plan.accepted_homeless == {"domain 9"}
    assert judge(cached(), usage=deaf, memory=Memory()).trips == ()


# --- in a row ---------------------------------------------------------------------------------------------------------

steps = st.lists(st.tuples(st.sampled_from([0, 3, 6]), st.booleans()), min_size=2, max_size=10)


@given(steps)
def test_a_trip_has_one_name_from_the_pass_that_opens_it_to_the_one_that_ends_it(steps: list[tuple[int, bool]]) -> None:
    memory, names = Memory(), list[str | None]()
    policy = Policy(minimum_age=MinimumAge(original=1000 * DAY))
    for number, (count, complete) in enumerate(steps):
        usage = used({name: [overlay()] for name in SIX[:count]}, directories=6, unknown=() if complete else (DEAF,))
        plan = judge(*map(cached, SIX), usage=usage, memory=memory, policy=policy, now=later(number * HOUR))
        assert bool(plan.breaker) == bool(plan.trips)
        names.append(plan.trips[0].name if plan.trips else None)
        last = LastPass(frozenset(SIX[:count]), 6) if complete else memory.last_pass
        trips = {trip.cause: trip.since for trip in plan.trips}
        memory = replace(memory, last_pass=last, breaker=plan.breaker, trips=trips)
    for one, other in pairwise(names):
        assert one is None or other in (one, None)
    opened = [other for one, other in pairwise([None, *names]) if one is None and other is not None]
    assert len(opened) == len(set(opened))
