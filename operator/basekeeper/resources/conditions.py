"""Conditions of both resources: their types, their reasons and what each means. The one home of these words.

The shape is that of KEP-1623, each with its own `observedGeneration`. `docs/conditions.md` is compared with the
tables here in a test.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from basekeeper.cache.verdicts import MEANING as VERDICT_MEANING
from basekeeper.cache.verdicts import Reason

from .fields import Omittable, Strict, Timestamp, omitted

MAX_MESSAGE = 1024
"""Characters of a message; the schema allows no more."""


class Status(StrEnum):
    """Whether a condition holds. `Unknown` is never `False`."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class PolicyCondition(StrEnum):
    """What is said of an `ImageCachePolicy`."""

    READY = "Ready"
    ENFORCING = "Enforcing"
    DEGRADED = "Degraded"
    ROLLING_OUT = "RollingOut"
    OVERRIDDEN = "Overridden"
    CACHES_AGREE = "CachesAgree"


class NodeCondition(StrEnum):
    """What is said of a `NodeImageCache`."""

    READY = "Ready"
    POLICY_APPLIED = "PolicyApplied"
    LIBVIRT_REACHABLE = "LibvirtReachable"
    NOVA_MANAGER_TOUCHES = "NovaManagerTouches"
    NOVA_MANAGER_REMOVES = "NovaManagerRemoves"
    SHARED_STORAGE = "SharedStorage"
    DISK_PRESSURE = "DiskPressure"
    INTEGRITY_VERIFIED = "IntegrityVerified"
    BREAKER_CLOSED = "BreakerClosed"
    HOLDING = "Holding"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What each status of a condition says."""

    true: str
    false: str
    unknown: str


_NEVER = "never written; a condition that is missing, or about an older generation, says nothing yet"
_NOT_SEEN = "no policy selects the node, or no pass has ended yet that could see it"

POLICY_MEANING: dict[PolicyCondition, Meaning] = {
    PolicyCondition.READY: Meaning(
        "the policy is accepted, and at least 95 % of the nodes that follow it and are Ready themselves run this "
        "generation of it; also with no such node, and in Audit or suspended like in Enforce",
        "it is not accepted, or more nodes than that do not run this generation yet",
        _NEVER,
    ),
    PolicyCondition.ENFORCING: Meaning(
        "at least one node removes by this policy",
        "no node removes by it: it is in Audit, suspended, not accepted, or no node has been told yet",
        _NEVER,
    ),
    PolicyCondition.DEGRADED: Meaning(
        "a node that follows it fails, has an open breaker, is missing or stale",
        "no node is in trouble; holds are told by `status.nodes.holding`, they are no trouble by themselves",
        _NEVER,
    ),
    PolicyCondition.ROLLING_OUT: Meaning(
        "a change that makes nodes more aggressive has not reached all of them; the message says what it waits for",
        "every node has been told",
        _NEVER,
    ),
    PolicyCondition.OVERRIDDEN: Meaning(
        "nodes that its selector matches follow another policy, which the message names",
        "every node that its selector matches follows it",
        _NEVER,
    ),
    PolicyCondition.CACHES_AGREE: Meaning(
        "of no base that other nodes have too a copy of its nodes is suspect: all are the same, or differ as other "
        "conversions of the image do",
        "a base of one of its nodes differs from at least two others that agree: `status.disagreements` names the base "
        "and the node",
        "no base of its nodes has a digest on a second node, or no two agree on one and nothing says which is right",
    ),
}
"""The table of `docs/conditions.md` about policies."""

NODE_MEANING: dict[NodeCondition, Meaning] = {
    NodeCondition.READY: Meaning(
        "the last pass ended without failure",
        "the last pass failed, as a whole or for a file; the message says why",
        "no policy selects the node, so that no pass is made",
    ),
    NodeCondition.POLICY_APPLIED: Meaning(
        "the last pass ran under the settings of `status.observedGeneration`",
        "the node removes nothing: it has no policy, or settings that its agent does not understand, may not read or "
        "has not been able to confirm for a week",
        _NEVER,
    ),
    NodeCondition.LIBVIRT_REACHABLE: Meaning(
        "libvirt listed all domains in the last pass",
        "it did not, so that removals are held; the message says why",
        f"{_NOT_SEEN}; or the agent was told that this host has no libvirt",
    ),
    NodeCondition.NOVA_MANAGER_TOUCHES: Meaning(
        "nova's own manager registers this host, and bases that instances here are built on have been touched since",
        "it does not: nova.conf says so, it has not registered this host for over a day, or it touches nothing; then "
        "basekeeper goes by disks, domains and locks alone",
        f"{_NOT_SEEN}; or nothing in use can tell, as on a new node",
    ),
    NodeCondition.NOVA_MANAGER_REMOVES: Meaning(
        "nova's own manager removes beside basekeeper: nova.conf says so, or finished files went within the last week "
        "by another hand",
        "nova.conf says that it does not",
        f"{_NOT_SEEN}; or nova.conf is not given, and files do not show it",
    ),
    NodeCondition.SHARED_STORAGE: Meaning(
        "other hosts use the node's instances directory; the reason says whether removals are held",
        "no sign of another host",
        _NOT_SEEN,
    ),
    NodeCondition.DISK_PRESSURE: Meaning(
        "the file system passed `pressure.highPercent` and is not back at `lowPercent`, or the cache is larger than "
        "`maxCacheBytes`; PressureNotOurs says that nothing in the cache may go",
        "neither is so",
        f"{_NOT_SEEN}; or the policy has neither `pressure` nor `maxCacheBytes`",
    ),
    NodeCondition.INTEGRITY_VERIFIED: Meaning(
        "every base has a baseline and was found whole within two intervals of `integrity`",
        "a base changed since its baseline, or could not be read; `status.integrity.findings` lists them",
        f"{_NOT_SEEN}; or the policy has no `integrity`, or not every base has been read yet",
    ),
    NodeCondition.BREAKER_CLOSED: Meaning(
        "no anomaly stands in the way of removals",
        "the evidence itself cannot be trusted, so that nothing is removed; the reason is one of the anomalies of "
        "docs/evidence.md",
        _NOT_SEEN,
    ),
    NodeCondition.HOLDING: Meaning(
        "something that would go is held; the reason is the weightiest, `status.holds` lists them",
        "nothing is held",
        _NOT_SEEN,
    ),
}
"""The table of `docs/conditions.md` about nodes."""


class Why(StrEnum):
    """Reasons of conditions. Holding, BreakerClosed and DiskPressure use the reasons of verdicts as well."""

    ALL_NODES_CURRENT = "AllNodesCurrent"
    NO_NODES = "NoNodes"
    NODES_PENDING = "NodesPending"
    NOT_ACCEPTED = "NotAccepted"
    ENFORCE = "Enforce"
    AUDIT = "Audit"
    SUSPENDED = "Suspended"
    DRAINING = "Draining"
    NODES_FAILING = "NodesFailing"
    BREAKER_OPEN = "BreakerOpen"
    NODES_MISSING = "NodesMissing"
    NODES_STALE = "NodesStale"
    AS_EXPECTED = "AsExpected"
    IN_PROGRESS = "InProgress"
    STOPPED = "Stopped"
    COMPLETE = "Complete"
    HIGHER_PRIORITY = "HigherPriority"
    OLDER_POLICY = "OlderPolicy"
    FIRST_NAME = "FirstName"
    NOT_OVERRIDDEN = "NotOverridden"
    SAME_CONTENT = "SameContent"
    VARIANTS = "Variants"
    SUSPECT_CONTENT = "SuspectContent"
    UNDECIDED = "Undecided"
    NOTHING_TO_COMPARE = "NothingToCompare"

    DONE = "PassEnded"
    FAILED = "PassFailed"
    NO_POLICY = "NoPolicy"
    APPLIED = "Applied"
    NOT_UNDERSTOOD = "NotUnderstood"
    NOT_PERMITTED = "NotPermitted"
    TOO_OLD = "TooOld"
    REACHABLE = "Reachable"
    UNREACHABLE = "Unreachable"
    NOT_ASKED = "NotAsked"
    TOUCHED = "Touched"
    NOT_TOUCHED = "NotTouched"
    NOT_REGISTERED = "NotRegistered"
    NOVA_CONF = "NovaConf"
    FILES_VANISHED = "FilesVanished"
    NO_SIGN = "NoSign"
    SHARED = "Shared"
    COORDINATING = "Coordinating"
    WAITING = "Waiting"
    NOT_SHARED = "NotShared"
    PRESSURE_NOT_OURS = "PressureNotOurs"
    ROOM_ENOUGH = "RoomEnough"
    NO_MARKS = "NoMarks"
    VERIFIED = "Verified"
    UNREADABLE = "Unreadable"
    NOT_READ_YET = "NotReadYet"
    NOT_VERIFIED = "NotVerified"
    CLOSED = "Closed"
    NOTHING_HELD = "NothingHeld"


WHY_MEANING: dict[Why, str] = {
    Why.ALL_NODES_CURRENT: "enough of the nodes run this generation",
    Why.NO_NODES: "no node with an agent follows the policy",
    Why.NODES_PENDING: "nodes have been told and have not reported a pass under this generation yet",
    Why.NOT_ACCEPTED: "the policy has fields or values that this release does not know; no node follows it",
    Why.ENFORCE: "nodes remove what may go",
    Why.AUDIT: "the policy's mode is Audit: nodes decide and report",
    Why.SUSPENDED: "the policy is suspended",
    Why.DRAINING: "quarantine.drain empties the quarantines; nothing is removed meanwhile",
    Why.NODES_FAILING: "the last pass of a node failed",
    Why.BREAKER_OPEN: "an anomaly stops removals on a node",
    Why.NODES_MISSING: "an agent runs on a node and has never reported",
    Why.NODES_STALE: "a node has not reported for two hours",
    Why.AS_EXPECTED: "no node is in trouble",
    Why.IN_PROGRESS: "the next wave starts when the interval of the last one is over",
    Why.STOPPED: "a node of the rollout is in trouble or silent; the rollout goes on when it is well",
    Why.COMPLETE: "every node has been told",
    Why.HIGHER_PRIORITY: "the other policy's priority is higher",
    Why.OLDER_POLICY: "priorities are equal, and the other policy is older",
    Why.FIRST_NAME: "priorities and ages are equal, and the other policy's name comes first",
    Why.NOT_OVERRIDDEN: "no other policy takes a node of this one",
    Why.SAME_CONTENT: "nodes that have a base of one name have the same content",
    Why.VARIANTS: "contents differ as those of other conversions do: in size, or on several nodes alike",
    Why.SUSPECT_CONTENT: "one node has other content of the same size than at least two that agree",
    Why.UNDECIDED: "nodes have different content of the same size, and no two agree",
    Why.NOTHING_TO_COMPARE: "no base of its nodes has a digest on a second node; spec.integrity makes nodes take them",
    Why.DONE: "the last pass ended without failure",
    Why.FAILED: "the last pass failed",
    Why.NO_POLICY: "no policy selects the node, or it has been told of none; nothing is observed and nothing removed",
    Why.APPLIED: "the last pass ran under these settings",
    Why.NOT_UNDERSTOOD: "the settings have fields or values that the agent does not know, or the answer was none of "
    "the API server's; it acts as in Audit",
    Why.NOT_PERMITTED: "the API server refuses the agent its own object; it acts as in Audit",
    Why.TOO_OLD: "the API server has been away for a week; the agent acts as in Audit",
    Why.REACHABLE: "libvirt listed all domains",
    Why.UNREACHABLE: "libvirt could not be asked",
    Why.NOT_ASKED: "the agent was told that this host has no libvirt (--libvirt none)",
    Why.TOUCHED: "nova's manager registered, and bases in use have been touched since",
    Why.NOT_TOUCHED: "nova's manager registers, but bases in use keep their old time stamps",
    Why.NOT_REGISTERED: "compute_nodes has no entry of this host, or none that is younger than a day",
    Why.NOVA_CONF: "nova.conf says it",
    Why.FILES_VANISHED: "within the last week finished files went that basekeeper did not remove",
    Why.NO_SIGN: "nothing that can be seen tells",
    Why.SHARED: "other hosts use the storage, and the policy's sharedStorage.mode is Refuse: removals are held",
    Why.COORDINATING: "other hosts use the storage, and all of them answer; the message names the one that removes",
    Why.WAITING: "other hosts use the storage, and one is silent, lets nothing go or cannot be understood: removals "
    "are held",
    Why.NOT_SHARED: "no sign of another host",
    Why.PRESSURE_NOT_OURS: "the file system is fuller than `pressure.highPercent`, and nothing in the cache may go",
    Why.ROOM_ENOUGH: "neither the file system nor the cache is fuller than the policy wants",
    Why.NO_MARKS: "the policy has neither `pressure` nor `maxCacheBytes`",
    Why.VERIFIED: "every base was found whole",
    Why.UNREADABLE: "a base could not be read, so that nobody knows whether it is whole",
    Why.NOT_READ_YET: "a base has no baseline yet, or was not read within two intervals",
    Why.NOT_VERIFIED: "the policy has no `integrity`",
    Why.CLOSED: "no anomaly",
    Why.NOTHING_HELD: "nothing is held",
}
"""The texts of `docs/conditions.md` about reasons."""


class Condition(Strict):
    """One observation about the object, in the shape of KEP-1623."""

    type: Annotated[str, Field(max_length=316)]
    """What is observed."""
    status: Annotated[Status, Field(strict=False)]
    """True, False or Unknown."""
    observed_generation: Annotated[Omittable[Annotated[int, Field(ge=0)]], Field(json_schema_extra=omitted)] = None
    """The generation of the object that this was observed of."""
    last_transition_time: Timestamp
    """When the status last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """Why, in a word that programs may compare."""
    message: Annotated[str, Field(max_length=32768)]
    """Why, in a sentence for people."""


@dataclass(frozen=True, slots=True)
class Said:
    """A condition before it is known since when."""

    type: PolicyCondition | NodeCondition
    status: Status
    reason: Why | Reason
    message: str


def settle(
    said: Iterable[Said], before: Iterable[Condition], generation: int | None, now: datetime
) -> tuple[Condition, ...]:
    """Give each condition its time: that of `before` while its status is the same, else `now`.

    `generation` is the one that was observed. Messages are cut to `MAX_MESSAGE` characters.
    """
    known = {condition.type: condition for condition in before}
    settled = []
    for item in said:
        old = known.get(item.type.value)
        since = old.last_transition_time if old is not None and old.status is item.status else now
        settled.append(
            Condition(
                type=item.type.value,
                status=item.status,
                observedGeneration=generation,
                lastTransitionTime=since.isoformat().replace("+00:00", "Z"),
                reason=item.reason.value,
                message=shortened(item.message),
            )
        )
    return tuple(settled)


def shortened(message: str, most: int = MAX_MESSAGE) -> str:
    """A message that fits into a condition; what UTF-8 cannot say, as a path may hold, is written out."""
    text = message.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= most else text[: most - 1] + "…"


def meaning_of(reason: Why | Reason) -> str:
    """What a reason of a condition means."""
    return WHY_MEANING[reason] if isinstance(reason, Why) else VERDICT_MEANING[reason]
