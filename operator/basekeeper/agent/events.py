"""Events on the Node object, where `kubectl describe node` shows them: few, and only what an operator should notice.

At most one of each kind a pass. A hold is told when it begins or changes its reason, not at every pass: what counts
as known is what the node's status said before, also that of an earlier process. Holds that end by themselves (a limit,
a starting instance) and those that somebody ordered are not told at all.
"""

import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

from basekeeper.cache.acts import Action
from basekeeper.cache.amounts import format_size
from basekeeper.cache.report import Report, Row
from basekeeper.cache.verdicts import Reason
from basekeeper.cache.wholeness import Flaw
from basekeeper.cluster.api import Api, ApiError
from basekeeper.cluster.kinds import EVENTS
from basekeeper.resources.conditions import NodeCondition, Status, Why

_log = logging.getLogger(__name__)
COMPONENT = "basekeeper-agent"
_MAX_MESSAGE, _MAX_NAME = 1024, 253
_NAMED = 3
_QUIET = frozenset(
    {Reason.LIMIT_REACHED, Reason.SPAWN_IN_PROGRESS, Reason.SUSPENDED, Reason.DRAINING, Reason.OUTSIDE_WINDOW}
)


class EventReason(StrEnum):
    """What events are about; the texts are in `MEANING`."""

    REMOVED = "BaseImagesRemoved"
    RESTORED = "BaseImagesRestored"
    HELD = "RemovalHeld"
    PRESSURE_NOT_OURS = "PressureNotOurs"
    CORRUPT = "BaseImageCorrupt"
    BREAKER_OPENED = "BreakerOpened"
    BREAKER_CLOSED = "BreakerClosed"


MEANING: dict[EventReason, str] = {
    EventReason.REMOVED: "a pass removed files that nothing needed; one a pass, with their number and bytes",
    EventReason.RESTORED: "files went back from the quarantine: a warning where something needs them, which should not "
    "have been removed then; normal where `quarantine.drain` put them back",
    EventReason.HELD: "something began to hold removals or purges that will not end by itself",
    EventReason.PRESSURE_NOT_OURS: "the disk passed `pressure.highPercent`, and nothing in the cache may go",
    EventReason.CORRUPT: "verification found bases that changed since their baseline; told once of each",
    EventReason.BREAKER_OPENED: "the evidence itself cannot be trusted; nothing is removed until that is over",
    EventReason.BREAKER_CLOSED: "that is over",
}
"""The table of `docs/conditions.md` about events."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event."""

    reason: EventReason
    message: str
    warning: bool = False


def of_pass(report: Report, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Event]:
    """What to tell of a pass, from its report and the status before and after it."""
    said = [*_acts(report), *_corrupt(before, after)]
    held = _condition(after, NodeCondition.HOLDING)
    if held.get("status") == Status.TRUE and held.get("reason") not in _QUIET:
        known = _condition(before, NodeCondition.HOLDING)
        anomaly = _condition(after, NodeCondition.BREAKER_CLOSED).get("status") == Status.FALSE
        if not anomaly and (known.get("status"), known.get("reason")) != (Status.TRUE, held["reason"]):
            said.append(Event(EventReason.HELD, f"{held['reason']}: {held['message']}", warning=True))
    return said + _pressure(before, after) + _breaker(before, after)


def _acts(report: Report) -> list[Event]:
    gone = report.removed
    back = [row for row in report.rows if row.action is Action.RESTORED]
    said = []
    if gone:
        size = format_size(sum(row.bytes for row in gone))
        said.append(Event(EventReason.REMOVED, f"removed {_files(len(gone))}, {size}, that nothing needed"))
    if back:
        said.append(_restored(back))
    return said


def _restored(back: Sequence[Row]) -> Event:
    needed = [row for row in back if row.reason is not Reason.DRAINING]
    drained = len(back) - len(needed)
    parts = [f"{_files(len(needed))} that something needs"] if needed else []
    parts += [f"{_files(drained)} to empty the quarantine"] if drained else []
    names = ", ".join(row.name for row in (needed or back)[:_NAMED])
    return Event(EventReason.RESTORED, f"put back {' and '.join(parts)}: {names}", warning=bool(needed))


def _pressure(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Event]:
    was, now = (_condition(status, NodeCondition.DISK_PRESSURE) for status in (before, after))
    if now.get("reason") != Why.PRESSURE_NOT_OURS or was.get("reason") == Why.PRESSURE_NOT_OURS:
        return []
    return [Event(EventReason.PRESSURE_NOT_OURS, now["message"], warning=True)]


def _corrupt(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Event]:
    """Findings that are newer than all that was told: one that comes back to a list that was cut is none."""
    known = {(item.get("time", ""), item.get("name")) for item in _findings(before)}
    latest = max((time for time, _ in known), default="")
    new = [item for item in _findings(after) if item["time"] >= latest and (item["time"], item["name"]) not in known]
    corrupt = [item for item in new if item["kind"] == Flaw.CORRUPT]
    if not corrupt:
        return []
    told = "; ".join(map(_where, corrupt[:_NAMED]))
    return [Event(EventReason.CORRUPT, f"{_files(len(corrupt))} changed since its baseline: {told}", warning=True)]


def _where(finding: Mapping[str, Any]) -> str:
    at = f" at byte {finding['offset']}" if "offset" in finding else ""
    return f"{finding['name']}{at}{', in use' if finding.get('inUse') else ''}"


def _findings(status: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (status.get("integrity") or {}).get("findings") or ()


def _breaker(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Event]:
    was, now = (_condition(status, NodeCondition.BREAKER_CLOSED) for status in (before, after))
    if now.get("status") == Status.FALSE and was.get("status") != Status.FALSE:
        trip = after.get("breaker", {}).get("trip", now["reason"])
        return [Event(EventReason.BREAKER_OPENED, f"{trip}: {now['message']}", warning=True)]
    if now.get("status") == Status.TRUE and was.get("status") == Status.FALSE:
        trip = before.get("breaker", {}).get("trip", was["reason"])
        return [Event(EventReason.BREAKER_CLOSED, f"{trip} is over, and stops nothing any more")]
    return []


def _files(count: int) -> str:
    return "1 base image" if count == 1 else f"{count} base images"


def _condition(status: Mapping[str, Any], kind: NodeCondition) -> Mapping[str, Any]:
    return next((item for item in status.get("conditions") or () if item.get("type") == kind), {})


def _name(node: str) -> str:
    """A name of its own, as long as names may be."""
    own = uuid4().hex[:16]
    return f"{node[: _MAX_NAME - len(own) - 1].rstrip('.-')}.{own}"


def _cut(message: str) -> str:
    """A message as long as the API server takes it: it counts bytes."""
    return message.encode("utf-8", "backslashreplace")[:_MAX_MESSAGE].decode("utf-8", "ignore")


def post(api: Api, node: str, owner: Mapping[str, Any] | None, events: list[Event]) -> None:
    """Write events about a node; one that cannot be written is logged and lost.

    `owner` is the owner reference of the node's object, which has the Node's uid.
    """
    for event in events:
        now = datetime.now(UTC)
        stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        content = {
            "metadata": {"name": _name(node), "namespace": EVENTS.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Node",
                "name": node,
                "uid": (owner or {}).get("uid", node),
            },
            "reason": event.reason.value,
            "message": _cut(event.message),
            "type": "Warning" if event.warning else "Normal",
            "action": event.reason.value,
            "count": 1,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "source": {"component": COMPONENT, "host": node},
            "reportingComponent": COMPONENT,
            "reportingInstance": socket.gethostname(),
        }
        try:
            api.create(EVENTS, content)
        except ApiError as error:
            _log.warning("an event could not be written: %s", error)
