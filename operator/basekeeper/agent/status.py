"""What a node tells of a pass: a `NodeImageCache`'s status, made from the engine's report. Values in, values out.

It holds no name of an instance, a tenant or an image but what the paths of holds say, and it is cut so that the whole
object stays small: 5,000 objects of 32 KiB took an API server from 0.3 to 2.4 GB.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from basekeeper import __version__
from basekeeper.cache.acts import Action
from basekeeper.cache.quarantine_plan import Hold
from basekeeper.cache.report import Outcome, Report, Row
from basekeeper.cache.settings import Host
from basekeeper.cache.storage import Capacity
from basekeeper.cache.verdicts import USE_REASONS, Reason, Verdict
from basekeeper.resources.conditions import Condition, NodeCondition, Said, Status, Why, settle, shortened
from basekeeper.resources.fields import moment
from basekeeper.resources.node_image_cache import MAX_FILES, MAX_HOLDS, NodeStatus
from basekeeper.resources.quantities import format_size, timestamp

from .orders import Order

BUDGET = 8192
"""Bytes that the whole object should stay under."""
_OVERHEAD = 1900
"""Of these: metadata and what the server keeps about field managers, as measured, and some."""
_LEAST = 2600
"""Bytes for the status, however large the spec is."""
_MESSAGE, _PATH = 240, 512
_NOT_NEWS = ("heartbeatTime",)
_NOT_NEWS_OF_A_PASS = ("time", "seconds")
_STEPS = 100
"""A file system's figures count as changed when they moved by one of so many parts of its size."""


def after_pass(
    order: Order, report: Report, host: Host, capacity: Capacity | None, before: Mapping[str, Any], now: float
) -> dict[str, Any]:
    """The status after a pass; `before` is the one that the object has, `now` Unix seconds.

    A pass that failed as a whole knows nothing of the cache: then what was known stays.
    """
    told = _common(order, host, [*_conditions(report), order.applied], before, now)
    told["policy"] = None if order.origin is None else order.origin.model_dump(by_alias=True)
    told["lastPass"] = _last_pass(report)
    if report.error:
        kept = {key: before[key] for key in ("cache", "reclaimable", "files", "filesTruncated") if key in before}
        return _fitted({**told, **kept}, order)
    told["cache"] = _cache(report)
    told["reclaimable"] = format_size(report.reclaimable)
    if capacity is not None:
        told["fileSystem"] = {
            "type": capacity.type,
            "sizeBytes": capacity.size,
            "availableBytes": max(0, capacity.available),
        }
    told["holds"] = [_hold(hold) for hold in report.holds]
    told["files"] = [_file(row) for row in sorted(report.rows, key=_notability)]
    return _fitted(told, order)


def without_pass(order: Order, host: Host, before: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The status of a node that has nothing to do: what was last seen stays, dated by its pass."""
    idle = [_unknown(kind, Why.NO_POLICY, order.applied.message) for kind in NodeCondition]
    said = [item for item in idle if item.type is not NodeCondition.POLICY_APPLIED]
    kept = {key: before[key] for key in ("lastPass", "cache", "reclaimable") if key in before}
    return _fitted({**_common(order, host, [*said, order.applied], before, now), **kept}, order)


def beaten(told: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The same status with a heartbeat of now."""
    return {**told, "heartbeatTime": timestamp(now)}


def differs(told: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether a status is news: anything but times and seconds of a pass that found nothing new."""
    return bool(_news(told) != _news(there))


def _news(told: Mapping[str, Any]) -> dict[str, Any]:
    news = {key: value for key, value in told.items() if key not in _NOT_NEWS}
    if "lastPass" in news:
        news["lastPass"] = {key: value for key, value in news["lastPass"].items() if key not in _NOT_NEWS_OF_A_PASS}
    if (system := news.get("fileSystem")) is not None:
        step = max(1, int(system.get("sizeBytes", 0)) // _STEPS)
        news["fileSystem"] = {**system, "availableBytes": round(int(system.get("availableBytes", 0)) / step)}
    return news


def _common(order: Order, host: Host, said: Iterable[Said], before: Mapping[str, Any], now: float) -> dict[str, Any]:
    known = [Condition.model_validate(item) for item in before.get("conditions", ())]
    conditions = settle(said, known, order.generation, moment(now))
    rank = {kind.value: place for place, kind in enumerate(NodeCondition)}
    return {
        "observedGeneration": order.generation,
        "heartbeatTime": timestamp(now),
        "agentVersion": __version__,
        "conditions": [
            condition.model_dump(mode="json", by_alias=True, exclude_none=True)
            for condition in sorted(conditions, key=lambda item: rank[item.type])
        ],
        "paths": {"instances": str(host.instances), "base": str(host.base)},
    }


def _conditions(report: Report) -> list[Said]:
    """What a pass says of the node."""
    if report.error:
        untold = [kind for kind in NodeCondition if kind not in (NodeCondition.READY, NodeCondition.POLICY_APPLIED)]
        failed = Said(NodeCondition.READY, Status.FALSE, Why.FAILED, report.error)
        return [failed, *(_unknown(kind, Why.FAILED, "the last pass failed") for kind in untold)]
    return [_ready(report), _libvirt(report), _shared(report), _breaker(report), _holding(report)]


def _ready(report: Report) -> Said:
    errors = [f"{row.name}: {row.error}" for row in report.rows if row.error]
    if report.outcome is Outcome.FAILED:
        return Said(NodeCondition.READY, Status.FALSE, Why.FAILED, "; ".join(errors))
    return Said(NodeCondition.READY, Status.TRUE, Why.DONE, "the last pass ended without failure")


def _libvirt(report: Report) -> Said:
    kind = NodeCondition.LIBVIRT_REACHABLE
    if report.libvirt_failure is not None:
        return Said(kind, Status.FALSE, Why.UNREACHABLE, report.libvirt_failure)
    if not report.libvirt_asked:
        return _unknown(kind, Why.NOT_ASKED, "the agent was told that this host has no libvirt (--libvirt none)")
    return Said(kind, Status.TRUE, Why.REACHABLE, "libvirt listed all domains")


def _shared(report: Report) -> Said:
    if report.shared is not None:
        return Said(NodeCondition.SHARED_STORAGE, Status.TRUE, Why.SHARED, report.shared)
    return Said(NodeCondition.SHARED_STORAGE, Status.FALSE, Why.NOT_SHARED, "no sign of another host")


def _breaker(report: Report) -> Said:
    if report.anomalies:
        first = report.anomalies[0]
        return Said(NodeCondition.BREAKER_CLOSED, Status.FALSE, first.reason, first.message)
    return Said(NodeCondition.BREAKER_CLOSED, Status.TRUE, Why.CLOSED, "no anomaly stands in the way of removals")


def _holding(report: Report) -> Said:
    if report.holds:
        first = min(report.holds, key=lambda hold: _WEIGHT.get(hold.reason, 0))
        return Said(NodeCondition.HOLDING, Status.TRUE, first.reason, first.message)
    held = next((row for row in report.rows if row.verdict is Verdict.HOLD), None)
    if held is not None:
        return Said(NodeCondition.HOLDING, Status.TRUE, held.reason, f"{held.name}: {held.message}")
    return Said(NodeCondition.HOLDING, Status.FALSE, Why.NOTHING_HELD, "nothing is held")


_WEIGHT = {Reason.SUSPENDED: 1, Reason.DRAINING: 1, Reason.SPAWN_IN_PROGRESS: 2, Reason.LIMIT_REACHED: 3}
"""Holds that pass by themselves, or that somebody ordered, are told last."""


def _unknown(kind: NodeCondition, why: Why, message: str) -> Said:
    return Said(kind, Status.UNKNOWN, why, message)


def _last_pass(report: Report) -> dict[str, Any]:
    seconds = report.seconds
    quarantined = [row for row in report.rows if row.action is Action.QUARANTINED]
    told: dict[str, Any] = {
        "time": timestamp(report.time),
        "mode": report.policy.mode.value,
        "outcome": report.outcome.value,
        "seconds": round(seconds.observe + seconds.judge + seconds.act, 3),
        "kept": _by_reason(report.rows, Verdict.KEEP),
        "held": _by_reason(report.rows, Verdict.HOLD),
        "removed": len(quarantined),
        "removedBytes": sum(row.bytes for row in quarantined),
        "restored": _count(report.rows, Action.RESTORED),
        "purged": _count(report.rows, Action.PURGED),
        "purgedBytes": report.reclaimed,
        "failed": _count(report.rows, Action.FAILED),
    }
    return told | ({"error": shortened(report.error)} if report.error else {})


def _by_reason(rows: Iterable[Row], verdict: Verdict) -> dict[str, int]:
    return dict(sorted(Counter(row.reason.value for row in rows if row.verdict is verdict).items()))


def _count(rows: Iterable[Row], action: Action) -> int:
    return sum(row.action is action for row in rows)


def _cache(report: Report) -> dict[str, Any]:
    left = [row for row in report.cached if row.action not in (Action.QUARANTINED, Action.PURGED)]
    return {
        "files": len(left),
        "bytes": sum(row.bytes for row in left),
        "reclaimableFiles": sum(row.verdict is Verdict.REMOVE for row in left),
        "reclaimableBytes": report.reclaimable,
        "quarantinedFiles": report.quarantined_files,
        "quarantinedBytes": report.quarantined,
        "reclaimedBytes": report.reclaimed_ever,
    }


def _hold(hold: Hold) -> dict[str, Any]:
    told = {"reason": hold.reason.value, "message": shortened(hold.message, _MESSAGE)}
    # A path that was cut would be none: `spec.acknowledged` could not take it.
    return told | ({"path": hold.path} if hold.path is not None and len(hold.path) <= _PATH else {})


def _file(row: Row) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": shortened(row.name, 255),
        "kind": row.kind.value,
        "verdict": row.verdict.value,
        "reason": row.reason.value,
        "bytes": row.bytes,
    }
    if row.action is not None:
        told["action"] = row.action.value
    if row.unused_since is not None and row.unused_since > 0 and row.reason not in USE_REASONS:
        told["unusedSince"] = timestamp(row.unused_since)
    if row.removable_at is not None:
        told["removableAt"] = timestamp(row.removable_at)
    return told


def _notability(row: Row) -> tuple[int, float, str]:
    """What an operator wants to see first: what went wrong, what happened, what is held, what may go, what is next."""
    if row.action is Action.FAILED:
        place = 0
    elif row.action is not None:
        place = 1
    elif row.verdict is Verdict.HOLD:
        place = 2
    elif row.verdict is Verdict.REMOVE:
        place = 3
    elif row.removable_at is not None:
        place = 4
    elif row.verdict is Verdict.KEEP:
        place = 5
    else:
        place = 6
    return place, row.removable_at or -row.bytes, row.name


def _fitted(told: dict[str, Any], order: Order) -> dict[str, Any]:
    """A status that fits: first fewer files, then fewer holds; both say that there are more."""
    spec = (order.found or {}).get("spec") or {}
    room = max(_LEAST, BUDGET - _OVERHEAD - _length(spec))
    holds: Sequence[Any] = told.pop("holds", [])
    files: Sequence[Any] = told.pop("files", [])
    truncated = bool(told.pop("filesTruncated", False))
    room -= _length(told)
    some_holds, room = _as_many(holds, MAX_HOLDS, max(room // 2, _length(list(holds[:1]))), room)
    some_files, _ = _as_many(files, MAX_FILES, room, room)
    told |= {"holds": some_holds, "files": some_files}
    told["filesTruncated"] = truncated or len(some_files) < len(files)
    made = {key: value for key, value in told.items() if value is not None}
    NodeStatus.model_validate(made)  # what the server would refuse must fail here, where it can be found
    return made


def _as_many(items: Sequence[Any], most: int, within: int, room: int) -> tuple[list[Any], int]:
    """The first items that fit `within` so many bytes, and what is left of `room` then."""
    taken: list[Any] = []
    used = 0
    for item in items[:most]:
        used += _length(item) + 1
        if used > within:
            return taken, room - used + _length(item) + 1
        taken.append(item)
    return taken, room - used


def _length(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())
