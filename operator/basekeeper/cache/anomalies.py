"""Anomalies: signs that the evidence itself, not one file's, cannot be trusted. Pure.

Limits throttle; only these stop every removal and purge of a pass: a clock that jumped, directories that are
not those of last time, domains whose directories are gone, users that vanished all at once.
"""

from collections.abc import Collection
from dataclasses import dataclass

from .amounts import some
from .evidence import Usage
from .memory import Breaker, Clock, Directories, Memory
from .settings import Policy
from .verdicts import Reason

CLOCK_TOLERANCE = 300.0
"""Seconds that wall clock and uptime may drift apart between two passes: more than any slewing does."""

_VANISHED_AT_LEAST = 3
_STILL_HOMELESS = (
    "most of nova's domains with local disks had lost their instance directories, and libvirt does not say whether "
    "they are back"
)


@dataclass(frozen=True, slots=True)
class Stop:
    """One thing that stops every removal and purge of this pass."""

    reason: Reason
    message: str
    path: str | None = None
    anomaly: bool = True
    """Worth telling even when there was nothing to hold."""


def clock_jump(before: Clock | None, now: Clock) -> float | None:
    """By how many seconds the wall clock jumped since `before`, or None. Across a boot only backwards shows."""
    if before is None:
        return None
    same_boot = before.boot == now.boot != "" and now.uptime >= before.uptime
    elapsed = now.uptime - before.uptime if same_boot else 0.0
    drift = (now.wall - before.wall) - elapsed
    if abs(drift) <= CLOCK_TOLERANCE or (drift > 0 and not same_boot):
        return None
    return drift


def stops(
    usage: Usage,
    policy: Policy,
    memory: Memory,
    now: Clock,
    breaker: Breaker | None,
    accepted: Collection[str],
    reset: Collection[Reason],
) -> tuple[Stop, ...]:
    """Everything that stops this pass from removing or purging anything, the weightiest first.

    `accepted` are the domains whose directories may be gone, `reset` what an operator has ended.
    """
    found: list[Stop] = []
    if memory.directories is Directories.OTHER:
        found.append(Stop(Reason.OTHER_DIRECTORY, memory.directories_message))
    if usage.libvirt_failure is not None:
        # What libvirt does not say is no evidence that they are back.
        if Reason.INSTANCES_VANISHED in memory.trips and Reason.INSTANCES_VANISHED not in reset:
            found.append(Stop(Reason.INSTANCES_VANISHED, _STILL_HOMELESS))
    # One leftover domain is a leftover; when most have lost their directories, a file system is missing.
    elif len(usage.homeless_domains) * 2 > usage.local_domains and not set(usage.homeless_domains) <= set(accepted):
        found.append(Stop(Reason.INSTANCES_VANISHED, _homeless(usage.homeless_domains)))
    if breaker is not None:
        found.append(Stop(breaker.cause, _vanished(breaker)))
    if (jump := clock_jump(memory.clock, now)) is not None:
        direction = "forward" if jump > 0 else "back"
        found.append(
            Stop(
                Reason.CLOCK_JUMPED,
                f"the clock went {direction} by {abs(jump):.0f} s since the last pass; every age starts anew from now",
            )
        )
    if usage.shared is not None and usage.shared.holds:
        said = (usage.shared.message, *usage.shared.also)
        found.extend(Stop(Reason.SHARED_STORAGE, message, anomaly=False) for message in said)
    if policy.suspend:
        found.append(Stop(Reason.SUSPENDED, "the policy says suspend: true", anomaly=False))
    return tuple(found)


def accepted_homeless(usage: Usage, memory: Memory, reset: Collection[Reason]) -> frozenset[str]:
    """The domains whose directories may be gone: those that were when an operator said so, and still are."""
    if usage.libvirt_failure is not None:
        return memory.accepted_homeless
    gone = frozenset(usage.homeless_domains)
    return gone if Reason.INSTANCES_VANISHED in reset else gone & memory.accepted_homeless


def breaker_after(
    usage: Usage, used: frozenset[bytes], policy: Policy, memory: Memory, now: Clock, reset: Collection[Reason]
) -> Breaker | None:
    """The breaker after this look: opened, still open, or None.

    `used` are the names that have users now. It closes when users come back, after one minimum age of complete
    evidence (an incomplete look, or a clock that jumped, starts that time again), or as an operator says.
    """
    complete = not usage.unknown
    before = memory.breaker if Reason.USERS_VANISHED not in reset else None
    if before is not None:
        if not _too_many_gone(before.names, used):
            return None
        since = before.since if complete and clock_jump(memory.clock, now) is None else now.wall
        if now.wall - since >= policy.minimum_age.original:
            return None
        return Breaker(before.cause, since, before.names)
    last = memory.last_pass
    if last is None or not complete:
        return None
    places = usage.directories + usage.domains
    drained = places * 2 <= last.places
    if drained or not _too_many_gone(last.used, used):
        return None
    return Breaker(Reason.USERS_VANISHED, now.wall, last.used)


def _too_many_gone(before: frozenset[bytes], used: frozenset[bytes]) -> bool:
    gone = len(before - used)
    return gone >= _VANISHED_AT_LEAST and gone * 2 > len(before)


def _homeless(domains: tuple[str, ...]) -> str:
    return (
        f"{some(domains, 1)} has local disks, but its instance directory does not exist; "
        "is the instances file system mounted?"
    )


def _vanished(breaker: Breaker) -> str:
    return (
        f"of {len(breaker.names)} bases in use in an earlier pass most have no user now, although the instances are "
        "still there; removals wait until the users are back, or for one minimumAge.original of complete evidence"
    )
