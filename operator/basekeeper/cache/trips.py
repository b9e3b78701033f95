"""Trips of the breaker: each anomaly that stands, by a name, with since when it does and what ends it. Pure.

A name is made of the cause and the time, so that an operator's word about one is about no other: not about the same
anomaly when it comes again.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from .anomalies import Stop
from .evidence import Note
from .memory import Breaker, Memory
from .moments import compact, timestamp
from .settings import Policy
from .verdicts import ANOMALIES, Reason

TRIP_PATTERN = rf"^({'|'.join(reason.value for reason in Reason if reason in ANOMALIES)})-[0-9]{{8}}T[0-9]{{6}}Z$"
"""What the name of a trip looks like."""
_WORD = "or on your word (resetTrips in the policy, or `basekeeper adopt --trip`)"
_CLEARS: dict[Reason, str] = {
    Reason.OTHER_DIRECTORY: f"the next pass after the right directories are back, {_WORD} that these are right",
    Reason.INSTANCES_VANISHED: (
        f"the next pass after the directories are back or the domains undefined, {_WORD} that these domains are gone"
    ),
    Reason.CLOCK_JUMPED: "the next pass; every age starts anew",
}


@dataclass(frozen=True, slots=True)
class Trip:
    """An anomaly that stands."""

    cause: Reason
    since: float
    """When a pass first saw it, Unix seconds."""
    message: str
    """What was seen."""
    clears: str
    """What ends it."""

    @property
    def name(self) -> str:
        """By which an operator ends it."""
        return name_of(self.cause, self.since)


def name_of(cause: Reason, since: float) -> str:
    """The name of a trip of this cause that a pass first saw at `since` (Unix seconds)."""
    return f"{cause.value}-{compact(since)}"


def reset(policy: Policy, memory: Memory) -> frozenset[Reason]:
    """What an operator ends of that which stood when the last pass ended."""
    return frozenset(cause for cause, since in memory.trips.items() if name_of(cause, since) in policy.reset_trips)


def standing(
    stops: Iterable[Stop], policy: Policy, memory: Memory, now: float, breaker: Breaker | None, *, complete: bool
) -> tuple[Trip, ...]:
    """The trips that stand after this look, the weightiest first; `complete`: nothing was left unasked."""
    ended = reset(policy, memory) | {Reason.CLOCK_JUMPED}  # a clock that jumps again is another trip
    vanished = _users_back_or(breaker, policy, complete=complete)

    def since(cause: Reason) -> float:
        before = memory.trips.get(cause)
        if before is None:
            return now
        return max(now, before + 1) if cause in ended else before  # a second later: another name

    return tuple(
        Trip(stop.reason, since(stop.reason), stop.message, _CLEARS.get(stop.reason, vanished))
        for stop in stops
        if stop.anomaly
    )


def notes(policy: Policy, memory: Memory) -> tuple[Note, ...]:
    """What became of each of the operator's words."""
    known = {name_of(cause, since) for cause, since in memory.trips.items()}
    return tuple(
        Note("TripReset", f"{name} ends on the operator's word")
        if name in known
        else Note("TripUnknown", f"resetTrips names {name}, which does not stand here, or no more; nothing was done")
        for name in sorted(policy.reset_trips)
    )


def _users_back_or(breaker: Breaker | None, policy: Policy, *, complete: bool) -> str:
    if breaker is None or not complete:
        when = "one minimumAge.original after all evidence is complete again"
    else:
        when = f"at {timestamp(breaker.since + policy.minimum_age.original)} if all evidence is complete until then"
    return f"the next pass after the users are back, {when}, {_WORD} that all is as it should be"
