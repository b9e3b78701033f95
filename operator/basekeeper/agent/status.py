"""What a node tells of a pass: a `NodeImageCache`'s status, made from the engine's report. Values in, values out.

It holds no name of an instance, a tenant or an image but what the paths of holds say, and it is cut so that the whole
object stays small: 5,000 objects of 32 KiB took an API server from 0.3 to 2.4 GB.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from basekeeper import __version__
from basekeeper.cache import windows
from basekeeper.cache.acts import Action
from basekeeper.cache.amounts import format_size
from basekeeper.cache.moments import timestamp
from basekeeper.cache.names import display
from basekeeper.cache.orphans import Orphans
from basekeeper.cache.pressure import Relief
from basekeeper.cache.quarantine_plan import Hold
from basekeeper.cache.report import Report, Row
from basekeeper.cache.settings import Host
from basekeeper.cache.storage import Capacity
from basekeeper.cache.trips import Trip
from basekeeper.cache.verdicts import USE_REASONS, Verdict
from basekeeper.cache.wholeness import Finding, State, Wholeness
from basekeeper.resources import maintenance_window
from basekeeper.resources.conditions import Condition, Said
from basekeeper.resources.fields import MOST_BYTES, moment
from basekeeper.resources.node_image_cache import MAX_DIGESTS, MAX_FILES, MAX_FINDINGS, MAX_HOLDS, NodeStatus

from . import conditions
from .orders import Order

BUDGET = 8192
"""Bytes that the whole object should stay under."""
_OVERHEAD = 1610
"""Of these: metadata and what the server keeps about field managers, as measured, but for two times the name."""
_MORE = 160
"""Bytes that an object has beside metadata that was read, spec and status."""
_LEAST = 2600
"""Bytes for the status, however large the spec is."""
_LISTS = 2000
"""Bytes that messages leave to holds and files."""
_FILES = 1200
"""Bytes that digests leave to files."""
_MESSAGES = (512, 240, 120, 90, 60)
"""Bytes of a message: the first of these with which there is room for the lists."""
_PATH, _NAME, _HOLD = 512, 255, 240
_NOT_NEWS = ("heartbeatTime",)
_NOT_NEWS_OF_A_PASS = ("time", "seconds")
_NOT_NEWS_OF_PRESSURE = ("targetBytes",)
_STEPS = 100
"""A file system's figures count as changed when they moved by one of so many parts of its size."""
_OF_THE_CACHE = (
    "cache",
    "reclaimable",
    "fileSystem",
    "pressure",
    "integrity",
    "breaker",
    "orphans",
    "holds",
    "holdsTruncated",
    "files",
    "filesTruncated",
)


def after_pass(
    order: Order, report: Report, host: Host, capacity: Capacity | None, before: Mapping[str, Any], now: float
) -> dict[str, Any]:
    """The status after a pass; `before` is the one that the object has, `now` Unix seconds.

    A pass that failed as a whole knows nothing of the cache: then what was known stays.
    """
    told = _common(order, host, [*conditions.of_pass(report, before), order.applied], before, now)
    told["policy"] = None if order.origin is None else order.origin.model_dump(by_alias=True)
    told["lastPass"] = _last_pass(report)
    if report.policy.windows:
        told["window"] = maintenance_window.told(windows.look(report.policy.windows, now))
    if report.error:
        return _fitted({**told, **_kept(before, _OF_THE_CACHE)}, order, host)
    told["cache"] = _cache(report)
    told["reclaimable"] = format_size(report.reclaimable)
    if capacity is not None:
        told["fileSystem"] = {
            "type": _brief(capacity.type, 64),
            "sizeBytes": _bytes(capacity.size),
            "availableBytes": _bytes(capacity.available),
            **({} if capacity.identity is None else {"identity": capacity.identity}),
        }
    if report.relief is not None:
        told["pressure"] = _pressure(report.relief)
    if report.wholeness is not None:
        told["integrity"] = _integrity(report.wholeness)
    if report.trips:
        told["breaker"] = _breaker(report.trips[0])
    if report.orphans.unknown is None:
        told["orphans"] = _orphans(report.orphans)
    told["holds"] = [_hold(hold) for hold in report.holds]
    told["files"] = [_file(row) for row in sorted(report.rows, key=_notability)]
    return _fitted(told, order, host)


def without_pass(order: Order, host: Host, before: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The status of a node that has nothing to do: what was last seen stays, dated by its pass."""
    told = _common(order, host, [*conditions.without_pass(order.applied.message), order.applied], before, now)
    return _fitted({**told, **_kept(before, ("lastPass", "cache", "reclaimable"))}, order, host)


def beaten(told: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The same status with a heartbeat of now."""
    return {**told, "heartbeatTime": timestamp(now)}


def differs(told: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether a status is news: anything but times and seconds of a pass that found nothing new."""
    return _news(told) != _news(there) or _moved(told.get("fileSystem") or {}, there.get("fileSystem") or {})


def _news(told: Mapping[str, Any]) -> dict[str, Any]:
    news = {key: value for key, value in told.items() if key not in _NOT_NEWS}
    if "lastPass" in news:
        news["lastPass"] = {key: value for key, value in news["lastPass"].items() if key not in _NOT_NEWS_OF_A_PASS}
    if "fileSystem" in news:
        news["fileSystem"] = {key: value for key, value in news["fileSystem"].items() if key != "availableBytes"}
    if "integrity" in news:
        news["integrity"] = {key: value for key, value in news["integrity"].items() if key != "oldestVerifiedTime"}
    if "pressure" in news:
        news["pressure"] = {key: value for key, value in news["pressure"].items() if key not in _NOT_NEWS_OF_PRESSURE}
    return news


def _moved(told: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether a file system is fuller or emptier than was told, by more than comes and goes."""
    by = abs(told.get("availableBytes", 0) - there.get("availableBytes", 0))
    return bool(by and by * _STEPS >= told.get("sizeBytes", 0))


def _kept(before: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """Those fields of the status before that are still ones: another release may have written it."""
    return {name: before[name] for name in fields if name in before and conditions.is_ours({name: before[name]})}


def _common(
    order: Order, host: Host, said: Iterable[Said | Condition], before: Mapping[str, Any], now: float
) -> dict[str, Any]:
    """What every status has."""
    return {
        "observedGeneration": order.generation,
        "heartbeatTime": timestamp(now),
        "agentVersion": __version__,
        "conditions": conditions.settled(said, before, order.generation, moment(now)),
        "paths": {name: _brief(display(bytes(path)), _PATH) for name, path in _paths(host).items()},
    }


def _paths(host: Host) -> dict[str, Path]:
    return {"instances": host.instances, "base": host.base}


def _last_pass(report: Report) -> dict[str, Any]:
    seconds = report.seconds
    removed = report.removed
    told: dict[str, Any] = {
        "time": timestamp(report.time),
        "mode": report.policy.mode.value,
        "outcome": report.outcome.value,
        "seconds": round(seconds.observe + seconds.judge + seconds.act, 3),
        "kept": _by_reason(report.rows, Verdict.KEEP),
        "held": _by_reason(report.rows, Verdict.HOLD),
        "removed": len(removed),
        "removedBytes": _bytes(sum(row.bytes for row in removed)),
        "restored": _count(report.rows, Action.RESTORED),
        "purged": _count(report.rows, Action.PURGED),
        "purgedBytes": _bytes(report.reclaimed),
        "failed": _count(report.rows, Action.FAILED),
    }
    return told | ({"error": report.error} if report.error else {})


def _breaker(trip: Trip) -> dict[str, Any]:
    return {
        "trip": trip.name,
        "cause": trip.cause.value,
        "since": timestamp(trip.since),
        "message": trip.message,
        "clears": trip.clears,
    }


def _by_reason(rows: Iterable[Row], verdict: Verdict) -> dict[str, int]:
    return dict(sorted(Counter(row.reason.value for row in rows if row.verdict is verdict).items()))


def _count(rows: Iterable[Row], action: Action) -> int:
    return sum(row.action is action for row in rows)


def _cache(report: Report) -> dict[str, Any]:
    return {
        "files": len(report.left),
        "bytes": _bytes(sum(row.bytes for row in report.left)),
        "reclaimableFiles": len(report.going),
        "reclaimableBytes": _bytes(report.reclaimable),
        "quarantinedFiles": report.quarantined_files,
        "quarantinedBytes": _bytes(report.quarantined),
        "reclaimedBytes": _bytes(report.reclaimed_ever),
    }


def _pressure(relief: Relief) -> dict[str, Any]:
    percent = {} if relief.used_percent is None else {"usedPercent": math.ceil(relief.used_percent)}
    return {
        "state": relief.state.value,
        **percent,
        "targetBytes": _bytes(relief.target),
        "evictableBytes": _bytes(relief.evictable),
    }


def _integrity(known: Wholeness) -> dict[str, Any]:
    told: dict[str, Any] = {
        "verifiedFiles": known.verified,
        "baselinedFiles": len(known.baselines),
        "pendingFiles": known.count(State.PENDING),
        "corruptFiles": known.count(State.CORRUPT, State.CORRUPT_IN_USE),
        "corruptInUse": known.count(State.CORRUPT_IN_USE),
        "unreadableFiles": known.count(State.UNREADABLE),
        "findings": [_finding(item, known) for item in known.findings[:MAX_FINDINGS]],
        "digests": dict(known.digests),
    }
    if known.oldest_verified_at is not None:
        told["oldestVerifiedTime"] = timestamp(known.oldest_verified_at)
    return told


def _finding(finding: Finding, known: Wholeness) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": _brief(display(finding.name), _NAME),
        "kind": finding.flaw.value,
        "inUse": finding.identity in known.in_use,
        "time": timestamp(finding.found_at),
    }
    return told | ({"offset": _bytes(finding.offsets[0])} if finding.offsets else {})


def _orphans(orphans: Orphans) -> dict[str, Any]:
    told: dict[str, Any] = {
        "directories": len(orphans.directories),
        "bytes": _bytes(orphans.bytes),
        "aloneBytes": _bytes(orphans.alone_bytes),
    }
    return told | ({} if orphans.oldest is None else {"oldest": timestamp(orphans.oldest)})


def _bytes(count: int) -> int:
    """A number of bytes as the resource can hold it: some network file systems claim to be larger."""
    return min(max(0, count), MOST_BYTES)


def _hold(hold: Hold) -> dict[str, Any]:
    told = {"reason": hold.reason.value, "message": hold.message}
    # A path that was cut would be none: `spec.acknowledged` could not take it.
    return told | ({"path": hold.path} if hold.path is not None and len(hold.path.encode()) <= _PATH else {})


def _file(row: Row) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": _brief(row.name, _NAME),
        "kind": row.kind.value,
        "verdict": row.verdict.value,
        "reason": row.reason.value,
        "bytes": _bytes(row.bytes),
    }
    if row.entry is not None:
        told["quarantined"] = True
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
    return place, -float(row.bytes) if row.removable_at is None else row.removable_at, row.name


def _room(order: Order, host: Host) -> int:
    """Bytes for the status: what the rest of the object leaves."""
    metadata = (order.found or {}).get("metadata", {})
    rest = max(_OVERHEAD + 2 * len(host.node), _length(metadata) + _MORE) + _length(order.spec)
    return max(_LEAST, BUDGET - rest)


def _fitted(told: dict[str, Any], order: Order, host: Host) -> dict[str, Any]:
    """A status that fits: first shorter messages, then fewer files, then fewer holds; both say that there are more."""
    room = _room(order, host)
    told = {key: value for key, value in told.items() if value is not None}
    holds: Sequence[Any] = told.pop("holds", [])
    files: Sequence[Any] = told.pop("files", [])
    digests = dict((told.get("integrity") or {}).get("digests") or {})
    if digests:
        told["integrity"] = {**told["integrity"], "digests": {}}
    more_holds, more_files = told.pop("holdsTruncated", False), told.pop("filesTruncated", False)
    # Beside what an earlier pass saw, which was cut to its own room, the room would say something else each time.
    lengths = _MESSAGES if "error" not in told.get("lastPass", {}) else _MESSAGES[2:]
    fitting = (most for most in lengths if room - _length(_abridged(told, most)) >= _LISTS)
    most = next(fitting, _MESSAGES[-1])
    made = _abridged(told, most)
    holds = [{**hold, "message": _brief(hold["message"], min(most, _HOLD))} for hold in holds]
    room -= _length(made)
    some_holds, room = _as_many(holds, MAX_HOLDS, max(room // 2, _length(holds[:1])), room)
    some_digests, room = _as_many([*digests.items()], MAX_DIGESTS, room - _FILES, room)
    if some_digests:
        made["integrity"] = {**made["integrity"], "digests": dict(some_digests)}
    some_files, _ = _as_many(files, MAX_FILES, room, room)
    made |= {
        "holds": some_holds,
        "holdsTruncated": more_holds or len(some_holds) < len(holds),
        "files": some_files,
        "filesTruncated": more_files or len(some_files) < len(files),
    }
    NodeStatus.model_validate(made)  # what the server would refuse must fail here, where it can be found
    return made


def _abridged(told: Mapping[str, Any], most: int) -> dict[str, Any]:
    """The same status with no message of more than `most` bytes."""
    made = {**told, "conditions": [{**item, "message": _brief(item["message"], most)} for item in told["conditions"]]}
    if "error" in (last := told.get("lastPass") or {}):
        made["lastPass"] = {**last, "error": _brief(last["error"], most)}
    if "breaker" in told:
        cut = {field: _brief(told["breaker"][field], most) for field in ("message", "clears")}
        made["breaker"] = {**told["breaker"], **cut}
    return made


def _brief(text: str, most: int) -> str:
    """Text of at most so many bytes, and of nothing that UTF-8 cannot say."""
    raw = text.encode("utf-8", "backslashreplace")
    return raw.decode() if len(raw) <= most else raw[: most - 3].decode("utf-8", "ignore") + "…"


def _as_many(items: Sequence[Any], most: int, within: int, room: int) -> tuple[list[Any], int]:
    """The first items that fit `within` so many bytes, and what is left of `room` then."""
    taken: list[Any] = []
    used = 0
    for item in items[:most]:
        size = _length(item) + 1
        if used + size > within:
            break
        taken.append(item)
        used += size
    return taken, room - used


def _length(value: Any) -> int:
    """Bytes of a value as the API server stores it: its JSON writes three characters with six."""
    raw = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "backslashreplace")
    return len(raw) + sum(5 * raw.count(character) for character in b"<>&")
